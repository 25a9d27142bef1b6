"""From a trained run and images to explanations; torch is imported after the inputs have been checked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from wbctool.console import loading, note, warn
from wbctool.errors import InputError, UsageProblem
from wbctool.explaining.options import ALL, ExplanationOutput, ExplanationResult, MapOptions
from wbctool.inputs.protection import refuse_replacing
from wbctool.inputs.run_folders import read_info
from wbctool.modeling.checks import PreparationCheck
from wbctool.pipeline.runner import folder_for, run_records
from wbctool.pipeline.source import Source
from wbctool.pipeline.step import Execution, parse_shard
from wbctool.records import ERROR, PREDICTION, SPLITS, Record, has_image
from wbctool.records.selection import Selection

_NOTES = {
    "of other splits": "images of other splits left out (--split)",
    "without a cell": "fields without a cell left out",
    "without a mask": "images carry no mask: no energy in nucleus and cell (`wbctool segment` and `crop` make masks)",
    "blank": "maps are empty: no part of the image supports the class",
}


def explain_run(
    run: Path,
    source: str,
    out: Path,
    *,
    compare: Path | None = None,
    maps: MapOptions | None = None,
    output: ExplanationOutput | None = None,
    split: str = "test",
    device: str = "auto",
    precision: str = "auto",
    selection: Selection | None = None,
    execution: Execution | None = None,
) -> ExplanationResult:
    """Explain what a run predicts for images, into a folder of panels, records and `scores.json`.

    Args:
        run: a run folder.
        source: a folder, an image, a record file, or `-`.
        out: the output folder.
        compare: another run, which explains the same class.
        maps: how maps are made.
        output: what is written beside records and scores.
        split: which of the records that carry splits are explained; `all` for any.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto` (as the run was trained), `float32` or `bf16`.
        selection: where labels and groups come from, and which classes are kept.
        execution: how the command is run.

    Raises:
        InputError: an input or a run cannot be used, or there is nothing to explain.
        UsageProblem: options that cannot be used, or an output that is an input.
        DeviceError: there is no such device, or memory does not suffice.
    """
    output, execution = output or ExplanationOutput(), execution or Execution()
    _check(out, source, output, split, execution)
    records = Source([source], selection)
    paths = [path for path in (run, compare) if path]
    check = PreparationCheck([(str(path), read_info(path)) for path in paths])
    result = ExplanationResult()
    images = _usable(records, split, result, check)
    with loading(execution.quiet):
        from wbctool.explaining.step import Collector, explain_step, load_runs

    subjects = load_runs(paths, maps or MapOptions(), device, precision)
    step = explain_step(subjects, output, out, split, records.names)
    first = next(images, None)
    if first is None:
        message = f"{source}: holds nothing to explain of the split {split}"
        raise InputError(f"{message}; give --split {ALL}, or other images")
    collector = Collector(out, subjects, output, execution, result)
    result.outcome = run_records(
        *(step, chain([first], images), folder_for(step, out, execution), execution),
        on_record=collector.add,
        tally=records.tally,
        total=records.total(execution),
        before_end=collector.write,
    )
    if not execution.quiet:
        for line in check.warnings():
            warn(line)
        for reason, count in result.counts.items():
            if count:
                note(f"{count:,} {_NOTES[reason]}")
    return result


def _check(out: Path, source: str, output: ExplanationOutput, split: str, execution: Execution) -> None:
    """Refuse options that do not go together, and outputs that would lose something."""
    if output.sheet and output.no_panels:
        raise UsageProblem("--sheet is made of panels; leave out --no-panels")
    if output.sheet and execution.shard:
        raise UsageProblem("--sheet needs all panels; leave out --shard")
    parse_shard(execution.shard)
    if split not in (*SPLITS, ALL):
        raise UsageProblem(f"--split {split}: choose from {', '.join(SPLITS)}, {ALL}")
    if (out / "model.json").exists():
        raise UsageProblem(f"-o {out}: is a run folder; give another folder, so that nothing is lost")
    refuse_replacing("-o", out, [source])


def _usable(records: Source, split: str, result: ExplanationResult, check: PreparationCheck) -> Iterator[Record]:
    """The records with an image of the wanted split, and error records."""
    for record in records:
        if record["schema"] != ERROR:
            if split not in (ALL, record.get("split", split)):
                result.counts["of other splits"] += 1
                continue
            if record["schema"] != PREDICTION and not has_image(record):
                result.counts["without a cell"] += 1
                continue
            check.add(record)
        yield record
