"""What every run folder keeps of its images: which they were, and its predictions of the held-out ones."""

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

HOLDOUT = ("val", "test")


def write_dataset(out: Path, dataset: Dataset) -> None:
    """Write `dataset.jsonl`: the images of training, validation and test, so that leakage can be checked later."""
    with atomic(out / "dataset.jsonl", "w") as stream:
        for record in dataset.everything:
            stream.write(to_line(with_relative_paths(record, out.resolve())) + "\n")


def write_predictions(
    out: Path, name: str, classes: Sequence[str], holdout: Mapping[str, tuple[Sequence[Record], np.ndarray]]
) -> dict[str, Any]:
    """Write predictions of validation and test images, at the temperature fitted on validation.

    `holdout` has the records of each split of `HOLDOUT` and their probabilities, (n, classes). Returns what
    `model.json` keeps of the calibration.
    """
    records, probabilities = holdout["val"]
    truth = np.array([classes.index(record["label"]) for record in records], np.int64)
    temperature = fit_temperature(truth, probabilities)
    with atomic(out / "predictions.jsonl", "w") as stream:
        for records, probabilities in holdout.values():
            rows = scaled(probabilities, temperature) if len(records) else probabilities
            for record, row in zip(records, rows, strict=True):
                prediction = prediction_record(record, name, classes, row, temperature=temperature)
                stream.write(to_line(with_relative_paths(prediction, out.resolve())) + "\n")
    return {"method": "temperature", "temperature": temperature, "images": len(truth)}
