"""What every run folder keeps of the images it was made from: which they were, and what it says of those held back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wbctool.inputs.dataset import Dataset
from wbctool.modeling.predictor import prediction_record
from wbctool.records import Record, to_line, with_relative_paths
from wbctool.records.storage import atomic
from wbctool.statistics.calibration import fit_temperature, scaled

HELD = ("val", "test")


def write_dataset(out: Path, dataset: Dataset) -> None:
    """What was trained, validated and tested on, for whoever asks later whether its figures can be believed."""
    with atomic(out / "dataset.jsonl", "w") as stream:
        for record in dataset.everything:
            stream.write(to_line(with_relative_paths(record, out.resolve())) + "\n")


def write_predictions(
    out: Path, name: str, classes: Sequence[str], held: Mapping[str, tuple[Sequence[Record], np.ndarray]]
) -> dict[str, Any]:
    """Predictions of validation and test, at the temperature fitted on validation.

    Args:
        out: the run folder.
        name: of the run, in its predictions.
        classes: in the order of the probabilities.
        held: of each of `HELD`, the records and their probabilities, (n, classes).

    Returns:
        What `model.json` says of the calibration.
    """
    records, shares = held["val"]
    truth = np.array([classes.index(record["label"]) for record in records], np.int64)
    temperature = fit_temperature(truth, shares)
    with atomic(out / "predictions.jsonl", "w") as stream:
        for records, shares in held.values():
            rows = scaled(shares, temperature) if len(records) else shares
            for record, row in zip(records, rows, strict=True):
                made = prediction_record(record, name, classes, row, temperature=temperature)
                stream.write(to_line(with_relative_paths(made, out.resolve())) + "\n")
    return {"method": "temperature", "temperature": temperature, "images": len(truth)}
