"""What runs predicted for their validation images, to which prediction sets are fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from wbctool.errors import InputError, UsageProblem
from wbctool.inference.answers import Answers
from wbctool.inputs.folders import read_inputs
from wbctool.records import PREDICTION, Record
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally
from wbctool.statistics.conformal import PredictionSets


def fit_prediction_sets(runs: Sequence[Path], answers: Answers, coverage: float) -> PredictionSets:
    """Fit prediction sets to the validation images that runs have in common, by the mean of their probabilities.

    Raises:
        InputError: a run holds no predictions, or they cannot be read.
        UsageProblem: there are too few such images.
    """
    by_run = [{record["id"]: record for record in _validation(run)} for run in runs]
    ids = [image for image in by_run[0] if all(image in records for records in by_run)]
    rows = [
        [[records[image]["probabilities"].get(name, 0.0) for name in answers.classes] for image in ids]
        for records in by_run
    ]
    probabilities = answers.probabilities(np.mean(rows, axis=0).reshape(len(ids), len(answers.classes)))
    number_of = {name: answers.names.index(answer) for name, answer in answers.answer_of.items()}
    truth = np.array([number_of.get(by_run[0][image]["label"], -1) for image in ids], int)
    try:
        return PredictionSets.fit(answers.names, truth, probabilities, coverage)
    except ValueError as error:
        raise UsageProblem(f"--coverage {coverage:g}: too few validation images in {runs[0]}: {error}") from None


def _validation(run: Path) -> Iterator[Record]:
    """The labelled predictions of validation images that a run folder holds."""
    file = run / "predictions.jsonl"
    if not file.is_file():
        raise InputError(f"{file}: not there, and --coverage needs the predictions of validation images; train again")
    for record in read_inputs([str(file)], Selection(), Tally()):
        if record["schema"] == PREDICTION and record.get("split") == "val" and record.get("label") is not None:
            yield record
