"""`wbctool predict`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wbctool.commands.options import (
    Device,
    Jobs,
    Json,
    Overwrite,
    Precision,
    Quiet,
    SelectionOptions,
    SkipBad,
    new_app,
    with_options,
)

if TYPE_CHECKING:
    from contextlib import ExitStack

    from wbctool.modeling.run_folder import Run
    from wbctool.records import Record

app = new_app()

KEEP_EVERY = 64  # images between two moments at which --out survives a kill


@dataclass(frozen=True)
class FieldOptions:
    """How cells are found in whole smear fields."""

    fields: Annotated[
        bool, typer.Option("--fields", help="IN is smear fields: enhance, segment and crop as the run's images were.")
    ] = False
    cells: Annotated[Path | None, typer.Option(metavar="DIR", help="With --fields: keep the cells, in DIR/crop.")] = (
        None
    )
    kind: Annotated[str, typer.Option(metavar="wbc|platelet|rbc|any", help="With --fields: which cells.")] = "wbc"
    edge: Annotated[str, typer.Option(metavar="keep|drop", help="With --fields: cells cut by the edge.")] = "keep"


@app.command(
    epilog="Example:  wbctool predict runs/a cells/ | wbctool evaluate -\n\n"
    "From smears:  wbctool predict runs/a smears/ --fields | wbctool evaluate - --differential\n\n"
    "Several run folders give the mean of their probabilities."
)
@with_options
def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="RUN... IN", help="Run folders, then a folder, image, .jsonl file or -."),
    ],
    field_options: FieldOptions,
    selection: SelectionOptions,
    threshold: Annotated[
        float | None, typer.Option(metavar="P", min=0, max=1, help="Less confident predictions are marked uncertain.")
    ] = None,
    tta: Annotated[
        bool, typer.Option("--tta", help="Mean over all 8 flips and quarter turns. (as the run was trained)")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also into a file; resumable.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    jobs: Jobs = 0,
    overwrite: Overwrite = False,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Classify images, or the cells of smear fields, with one trained run or several."""
    from collections import Counter
    from contextlib import ExitStack

    from wbctool.console import Progress, emit, emit_while_read, loading, note, records_wanted, table, warn
    from wbctool.errors import DONE, SOME_FAILED, InputError, UsageProblem
    from wbctool.inputs.folders import read_inputs
    from wbctool.inputs.run_folders import read_info
    from wbctool.records import ERROR, PREDICTION, has_image, preparation_of
    from wbctool.records.selection import Tally

    *run_paths, source = arguments
    if source != "-" and (Path(source) / "model.json").is_file():
        raise UsageProblem(f"{source}: is a run folder; give images to predict after it")
    if not run_paths:
        raise UsageProblem(f"give a run folder and an input: wbctool predict RUN {source}")
    if out and source != "-" and out.resolve() == Path(source).resolve():
        raise UsageProblem(f"-o {out}: is the input; give another file")
    if field_options != FieldOptions() and not field_options.fields:
        raise UsageProblem("--cells, --kind and --edge go with --fields")
    tally = Tally()
    records = read_inputs([source], selection.selection(), tally)
    first = next(records, None)
    if first is None:
        raise InputError(f"{source}: no images or records found")

    for path in run_paths:
        read_info(Path(path))
    with loading(quiet):
        from wbctool.device import pick_device, pick_precision
        from wbctool.inference.prediction import predict as run_prediction
        from wbctool.inference.prediction_file import PredictionFile
        from wbctool.modeling.run_folder import load, trained_precision

    where = pick_device(device)
    with loading(quiet):
        runs = [load(Path(path), where) for path in run_paths]
    for run in runs[1:]:
        if run.classes != runs[0].classes:
            raise InputError(f"{run.path}: its classes differ from those of {runs[0].path}; they cannot be averaged")
    trained_in = {trained_precision(run.info) for run in runs}
    how: dict[str, Any] = {**({"views": 8} if tta else {}), **({"precision": precision} if precision != "auto" else {})}
    if precision == "auto" and len(trained_in) == 1:
        (precision,) = trained_in
    precision = pick_precision(precision, where)
    otherwise: Counter[str] = Counter()
    counts: Counter[str] = Counter()

    def usable(given: Iterable[Record]) -> Iterator[Record]:
        for record in given:
            if record["schema"] != ERROR:
                if record["schema"] == PREDICTION:
                    raise InputError(f"{source}: {record['id']} is a prediction already; give images or cells")
                if not has_image(record):
                    counts["without a cell"] += 1
                    finish(record)
                    continue
                for run in runs:
                    otherwise[str(run.path)] += preparation_of(record) != run.info.get("preparation", {})
            yield record

    def met(given: Iterable[Record]) -> Iterator[Record]:
        for record in given:
            counts["old errors"] += record["schema"] == ERROR
            yield record

    name = "+".join(str(run.path) for run in runs)
    predicted: Counter[str] = Counter()
    piped = records_wanted(json)
    with ExitStack() as stack:
        given, finish = _cells(runs, met(chain([first], records)), field_options, jobs, stack)
        newer_than = [run.path / "model.json" for run in runs]
        file = PredictionFile(out, newer_than, overwrite, name, how) if out else None
        progress = stack.enter_context(Progress("predict", "cells" if field_options.fields else "images", quiet))
        reuse = file.reuse() if file else None
        for record in run_prediction(runs, usable(given), where, precision, threshold, how, reuse, jobs):
            record = finish(record)
            failed = record["schema"] == ERROR
            counts["errors"] += failed
            counts["done"] += not failed
            counts["uncertain"] += bool(record.get("uncertain"))
            if not failed:
                predicted[record["predicted"]] += 1
            if file:
                file.write(record)
            if piped and file:
                piped = emit_while_read(record)
            elif piped:
                emit(record)
            progress.step(failed)
            if file and progress.done % KEEP_EVERY == 0:
                file.keep()
    if file:
        file.finish()
    for path, number in otherwise.items():
        if number and not quiet:
            warn(
                f"{number:,} images were prepared otherwise than those of {path} (`wbctool info {path}`); "
                "give cells of `wbctool crop`, or fields with --fields"
            )
    if not quiet:
        for line in tally.notes():
            note(line)
        if counts["without a cell"]:
            which = f" (--kind {field_options.kind})" if field_options.fields else ""
            note(f"{counts['without a cell']:,} fields without a cell{which} left out")
    failed = counts["errors"] - counts["old errors"] + tally.counts["damaged"]
    if failed and not quiet:
        note(f"{failed:,} inputs failed; each has an error record")
    if not records_wanted(json):
        total = max(counts["done"], 1)
        rows = [(label, f"{n:,}", f"{n / total:.1%}") for label, n in predicted.most_common()]
        if threshold is not None:
            rows.append(("uncertain", f"{counts['uncertain']:,}", f"{counts['uncertain'] / total:.1%}"))
        table(f"{counts['done']:,} images", ("predicted", "images", "share"), rows)
        if not out and not quiet:
            note("the predictions themselves go to a file: add `-o predictions.jsonl` or `> predictions.jsonl`")
    raise typer.Exit(SOME_FAILED if failed and not skip_bad else DONE)


def _cells(
    runs: Sequence[Run], records: Iterator[Record], options: FieldOptions, jobs: int, stack: ExitStack
) -> tuple[Iterator[Record], Callable[[Record], Record]]:
    """What is predicted: the records, or the cells of their fields; and what becomes of a prediction's files."""
    if not options.fields:
        return records, lambda record: record
    from tempfile import TemporaryDirectory

    from wbctool.commands.preparation import steps_of
    from wbctool.errors import InputError
    from wbctool.pipeline.preparation import cells_of_fields, without_files
    from wbctool.records import ERROR, IMAGE, MASK

    first = next(records)
    if first["schema"] not in (IMAGE, MASK, ERROR):
        raise InputError(f"{first['id']}: is not a whole field; leave out --fields")
    records = chain([first], records)
    preparation = runs[0].info.get("preparation", {})
    for run in runs[1:]:
        if run.info.get("preparation", {}) != preparation:
            raise InputError(f"{run.path}: its images were prepared otherwise than those of {runs[0].path}")
    steps = steps_of(preparation, options.kind, options.edge, str(runs[0].path))
    if options.cells:
        return cells_of_fields(records, steps, options.cells.resolve(), jobs, keep=True), lambda record: record
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="wbctool-", ignore_cleanup_errors=True))).resolve()
    cells = cells_of_fields(records, steps, folder, jobs)
    stack.callback(_emptied, folder, cells)
    return cells, lambda record: without_files(record, folder)


def _emptied(folder: Path, cells: Generator[Record]) -> None:
    """Stop making cells, and wait for what workers still write, so that the folder can go."""
    from time import sleep

    cells.close()
    before = -1
    for _ in range(20):
        found = sum(1 for _ in folder.rglob("*"))
        if found in (0, before):
            break
        before = found
        sleep(0.2)
