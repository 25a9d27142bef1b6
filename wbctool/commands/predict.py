"""`wbctool predict`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from wbctool.commands.options import (
    Device,
    Json,
    Overwrite,
    Quiet,
    SelectionOptions,
    SkipBad,
    new_app,
    with_options,
)

app = new_app()

KEEP_EVERY = 64  # images between two moments at which --out survives a kill


@app.command(
    epilog="Example:  wbctool predict runs/a cells/ | wbctool evaluate -\n\n"
    "Several run folders give the mean of their probabilities."
)
@with_options
def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="RUN... IN", help="Run folders, then a folder, image, .jsonl file or -."),
    ],
    selection: SelectionOptions,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Less confident predictions are marked uncertain.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also into a file; resumable.")
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Classify images with one trained run, or several."""
    from collections import Counter

    from wbctool.console import Progress, emit, note, records_wanted, table, warn
    from wbctool.errors import DONE, SOME_FAILED, InputError, UsageProblem
    from wbctool.folders import Tally, read_inputs
    from wbctool.records import ERROR, PREDICTION, has_image, preparation_of

    *run_paths, source = arguments
    if not run_paths:
        raise UsageProblem(f"give a run folder and an input: wbctool predict RUN {source}")
    if out and source != "-" and out.resolve() == Path(source).resolve():
        raise UsageProblem(f"-o {out}: is the input; give another file")
    tally = Tally()
    records = read_inputs([source], selection.selection(), tally)
    first = next(records, None)
    if first is None:
        raise InputError(f"{source}: no images or records found")

    from wbctool.device import pick_device, pick_precision
    from wbctool.modeling.inference import PredictionFile
    from wbctool.modeling.inference import predict as run_prediction
    from wbctool.modeling.run_folder import load

    where = pick_device(device)
    runs = [load(Path(path), where) for path in run_paths]
    for run in runs[1:]:
        if run.classes != runs[0].classes:
            raise InputError(f"{run.path}: its classes differ from those of {runs[0].path}; they cannot be averaged")
    precisions = {run.info.get("training", {}).get("precision", "auto") for run in runs}
    precision = pick_precision(precisions.pop() if len(precisions) == 1 else "auto", where)
    otherwise: Counter[str] = Counter()
    counts: Counter[str] = Counter()

    def usable() -> Iterator[dict[str, Any]]:
        for record in chain([first], records):
            if record["schema"] != ERROR:
                if record["schema"] == PREDICTION:
                    raise InputError(f"{source}: {record['id']} is a prediction already; give images or cells")
                if not has_image(record):
                    counts["without a cell"] += 1
                    continue
                for run in runs:
                    otherwise[str(run.path)] += preparation_of(record) != run.info.get("preparation", {})
            else:
                counts["old errors"] += 1
            yield record

    file = PredictionFile(out, [run.path / "model.json" for run in runs], overwrite) if out else None
    name = "+".join(str(run.path) for run in runs)
    predicted: Counter[str] = Counter()
    piped = records_wanted(json)
    with Progress("predict", "images", quiet) as progress:
        made = run_prediction(runs, usable(), where, precision, threshold, *([file.reuse(name)] if file else []))
        for record in made:
            failed = record["schema"] == ERROR
            counts["errors"] += failed
            counts["done"] += not failed
            counts["uncertain"] += bool(record.get("uncertain"))
            if not failed:
                predicted[record["predicted"]] += 1
            if file:
                file.write(record)
            if piped:
                emit(record)
            progress.step(failed)
            if file and progress.done % KEEP_EVERY == 0:
                file.keep()
    if file:
        file.finish()
    for path, number in otherwise.items():
        if number and not quiet:
            warn(f"{number:,} images were prepared otherwise than those of {path} (see `wbctool info {path}`)")
    if not quiet:
        for line in tally.notes():
            note(line)
        if counts["without a cell"]:
            note(f"{counts['without a cell']:,} fields without a cell left out")
    failed = counts["errors"] - counts["old errors"] + tally.counts["damaged"]
    if failed and not quiet:
        note(f"{failed:,} inputs failed; each has an error record")
    if not piped:
        total = max(counts["done"], 1)
        rows = [(label, f"{n:,}", f"{n / total:.1%}") for label, n in predicted.most_common()]
        if threshold is not None:
            rows.append(("uncertain", f"{counts['uncertain']:,}", f"{counts['uncertain'] / total:.1%}"))
        table(f"{counts['done']:,} images", ("predicted", "images", "share"), rows)
    raise typer.Exit(SOME_FAILED if failed and not skip_bad else DONE)
