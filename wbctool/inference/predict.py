"""From images and trained runs to predictions; torch is imported after the inputs have been checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbctool.console import loading, note, warn
from wbctool.errors import InputError
from wbctool.inference.answers import Answers
from wbctool.inference.options import PredictionOptions
from wbctool.inference.validation import fit_prediction_sets
from wbctool.inputs.protection import refuse_replacing
from wbctool.inputs.run_folders import read_info
from wbctool.modeling.checks import PreparationCheck
from wbctool.pipeline.chain import cells_of_fields
from wbctool.pipeline.output_folder import Output
from wbctool.pipeline.runner import run_records
from wbctool.pipeline.source import Source
from wbctool.pipeline.step import Execution, Outcome, Step
from wbctool.records import ERROR, IMAGE, MASK, PREDICTION, Record, has_image
from wbctool.records.selection import Selection

if TYPE_CHECKING:
    from wbctool.modeling.run_folder import Run

# From what a run says of the preparation of its images (`records.preparation_of`) and its name to the steps.
PreparationSteps = Callable[[Mapping[str, Any], str], Sequence[Step]]


@dataclass
class PredictionResult:
    """Counts of predictions.

    Attributes:
        outcome: of the step.
        predicted: number of images by predicted class.
        uncertain: number of predictions below the threshold.
        without_cell: number of fields without a cell, which were left out.
    """

    outcome: Outcome = field(default_factory=Outcome)
    predicted: Counter[str] = field(default_factory=Counter)
    uncertain: int = 0
    without_cell: int = 0

    def add(self, record: Record) -> None:
        """Count a record."""
        if record["schema"] == PREDICTION:
            self.predicted[record["predicted"]] += 1
            self.uncertain += bool(record.get("uncertain"))


def predict_images(
    runs: Sequence[str | Path],
    source: str,
    out: Path | None = None,
    *,
    options: PredictionOptions | None = None,
    selection: Selection | None = None,
    execution: Execution | None = None,
    field_steps: PreparationSteps | None = None,
    cells: Path | None = None,
) -> PredictionResult:
    """Classify images with one trained run, or with the mean of the probabilities of several.

    Args:
        runs: run folders with the same classes.
        source: a folder, an image, a record file, or `-`.
        out: record file for the predictions, which can be resumed; None prints them on stdout only.
        options: how images are classified.
        selection: where labels and groups come from. Its new names and its classes are also those that the runs answer
            with: probabilities of classes with one new name add up, classes that are not kept are no answer.
        execution: how the command is run; `jobs` counts processes that prepare or measure cells.
        field_steps: the images are whole smear fields, of which these steps make cells
            (`wbctool.commands.preparation.steps_of`); None for images that are prepared already.
        cells: with `field_steps`, the folder where cells are kept; None keeps none.

    Raises:
        InputError: an input or a run cannot be used, or runs have different classes.
        UsageProblem: options that cannot be used, or an output that is the input.
        DeviceError: there is no such device, or memory does not suffice.
    """
    options, execution = options or PredictionOptions(), execution or Execution()
    if out:
        refuse_replacing("-o", out, [source])
    selection = selection or Selection()
    records = Source([source], replace(selection, keep_unlabelled=True))
    folders = [Path(path) for path in runs]
    infos = [read_info(path) for path in folders]
    answers = Answers.of(infos[0]["classes"], selection.classes, selection.rename)
    records.tally.known_classes = answers.known
    with loading(execution.quiet):
        from wbctool.inference.step import load_runs, open_file, predict_step
    with loading(execution.quiet):
        loaded, device, precision = load_runs(folders, options.device, options.precision)
    sets = fit_prediction_sets(folders, answers, options.coverage) if options.coverage else None
    unit = "cells" if field_steps else "images"
    chosen = options.chosen | answers.stated
    step = predict_step(loaded, device, precision, answers, options.threshold, sets, chosen, execution.jobs, unit)
    with _prepared(records, loaded, field_steps, cells, execution.jobs) as (images, on_result):
        result, check = PredictionResult(), PreparationCheck((str(run.path), run.info) for run in loaded)
        usable = _usable(images, source, check, result, on_result)
        output = open_file(out, loaded, chosen, execution.overwrite) if out else Output()
        result.outcome = run_records(
            *(step, usable, output, execution, result.add, records.tally, records.total(execution)),
            on_result=on_result,
            failed_here=lambda error: bool(field_steps) and error["id"] not in records.error_ids,
        )
    if not execution.quiet:
        for line in check.warnings("; give cells of `wbctool crop`, or fields with --fields"):
            warn(line)
        if result.without_cell:
            note(f"{result.without_cell:,} fields without a cell left out")
    return result


def _prepared(
    records: Source, runs: Sequence[Run], field_steps: PreparationSteps | None, cells: Path | None, jobs: int
) -> AbstractContextManager[tuple[Iterator[Record], Callable[[Record], Record]]]:
    """The images to classify, and what their predictions have to go through at the end."""
    if field_steps is None:
        return nullcontext((iter(records), lambda record: record))
    if records.first["schema"] not in (IMAGE, MASK, ERROR):
        raise InputError(f"{records.first['id']}: is not a whole field; leave out --fields")
    preparation = runs[0].info.get("preparation", {})
    for run in runs[1:]:
        if run.info.get("preparation", {}) != preparation:
            raise InputError(f"{run.path}: its images were prepared differently from those of {runs[0].path}")
    steps = field_steps(preparation, str(runs[0].path))
    return cells_of_fields(records, steps, cells.resolve() if cells else None, jobs)


def _usable(
    images: Iterator[Record],
    source: str,
    check: PreparationCheck,
    result: PredictionResult,
    on_result: Callable[[Record], Record],
) -> Iterator[Record]:
    """The records that hold an image, and error records."""
    for record in images:
        if record["schema"] == PREDICTION:
            raise InputError(f"{source}: {record['id']} is a prediction already; give images or cells")
        if record["schema"] != ERROR:
            if not has_image(record):
                result.without_cell += 1
                on_result(record)
                continue
            check.add(record)
        yield record
