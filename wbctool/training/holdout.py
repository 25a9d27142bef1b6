"""Predictions of the held-out images, as `predict` would make them."""

from __future__ import annotations

import numpy as np

from wbctool.console import note
from wbctool.inputs.dataset import Dataset
from wbctool.measuring.batches import Measuring
from wbctool.modeling.model_types import Model
from wbctool.modeling.predictor import BATCH, missing_measures, probabilities
from wbctool.modeling.run_folder import HOLDOUT
from wbctool.records import Record
from wbctool.training.feed import Samples
from wbctool.training.images import ImageStore


def predict_holdout(
    model: Model, images: ImageStore, dataset: Dataset, samples: dict[str, Samples], precision: str, jobs: int
) -> dict[str, tuple[list[Record], np.ndarray]]:
    """Return the records of validation and test, and the model's probabilities of them, (n, classes).

    Images whose cells cannot be measured, where the model needs that, are added to `images.failed`.
    """
    model.eval()
    device = next(model.parameters()).device
    predictions = {}
    with Measuring(jobs) as measuring:
        for split in HOLDOUT:
            records: list[Record] = []
            chunks = [np.zeros((0, len(dataset.classes)))]
            for start in range(0, len(samples[split].rows), BATCH):
                rows = samples[split].rows[start : start + BATCH]
                measures = None
                if model.architecture.measures:
                    rows, measures = _measure(model, rows, dataset, images, measuring)
                if len(rows):
                    batch = images.batch(rows).to(device)
                    chunks.append(probabilities(model, batch, precision, measures=measures))
                records += [dataset.everything[row] for row in rows]
            predictions[split] = (records, np.concatenate(chunks))
    return predictions


def _measure(
    model: Model, rows: np.ndarray, dataset: Dataset, images: ImageStore, measuring: Measuring
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that could be measured, and their measures."""
    kept, measures = [], []
    records = [dataset.everything[row] for row in rows]
    for row, record, result in zip(rows, records, measuring(records), strict=True):
        if model.architecture.needs_mask and not isinstance(result, str) and np.isnan(result).all():
            result = missing_measures(record)
        if isinstance(result, str):
            images.failed[int(row)] = result
            note(f"failed: {result}")
        else:
            kept.append(row)
            measures.append(result)
    return np.array(kept, np.int64), np.array(measures, np.float32)
