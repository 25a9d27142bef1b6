"""Class probabilities of images, and prediction records made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from wbctool.device import autocast, images_at_once
from wbctool.records import PREDICTION, Record

if TYPE_CHECKING:
    from wbctool.modeling.model_types import Model

BATCH = 64


def probabilities(
    model: Model,
    images: torch.Tensor,
    precision: str,
    views: int | None = None,
    measures: np.ndarray | None = None,
) -> np.ndarray:
    """Return class probabilities of a batch, (n, classes), float64: the mean over symmetries of the square.

    Images are (n, 3, size, size), uint8, on the model's device. `views` is the number of symmetries, 1 to 8, in place
    of the model's; `measures` (n, measures) are those of the cells, for a model that takes them.
    """
    count = views or model.architecture.symmetries
    if not model.architecture.measures:
        measures = None
    rows = []
    step = images_at_once(images.device)
    with torch.inference_mode(), autocast(images.device, precision):
        for start, chunk in zip(range(0, len(images), step), images.split(step), strict=True):
            more = [] if measures is None else [measures[start : start + step]]
            each = [torch.softmax(model(view, *more).double(), dim=1) for view in symmetries(chunk, count)]
            rows.append(torch.stack(each).mean(0))
    return torch.cat(rows).cpu().numpy()


def symmetries(images: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Return the first `count` of the eight symmetries of the square, of a batch (n, channels, side, side)."""
    views = []
    for number in range(count):
        view = images.flip(-1) if number & 1 else images
        view = view.flip(-2) if number & 2 else view
        views.append(view.transpose(-1, -2) if number & 4 else view)
    return [view.contiguous(memory_format=torch.channels_last) for view in views]


def prediction_record(
    record: Record,
    run: str,
    classes: Sequence[str],
    row: np.ndarray,
    threshold: float | None = None,
    temperature: float | None = None,
) -> Record:
    """Return the prediction for one image: its record with the predicted class and all probabilities (classes,).

    `temperature` is what the logits were divided by, where the run is calibrated.
    """
    best = int(np.argmax(row))
    prediction = {
        **record,
        "schema": PREDICTION,
        "run": run,
        "predicted": classes[best],
        "confidence": _rounded(row[best]),
        "probabilities": {name: _rounded(probability) for name, probability in zip(classes, row, strict=True)},
    }
    if temperature is not None:
        prediction["temperature"] = temperature
    return with_uncertainty(prediction, threshold)


def _rounded(probability: float) -> float:
    return float(f"{probability:.6g}")  # significant digits, not decimals, as the log loss depends on small values


def with_uncertainty(record: Record, threshold: float | None) -> Record:
    """Return the prediction, marked uncertain where its confidence is under the threshold."""
    return record if threshold is None else {**record, "uncertain": record["confidence"] < threshold}


def missing_measures(record: Record) -> str:
    """Return the error for a record whose cell cannot be measured."""
    if isinstance(record.get("mask"), str):
        return f"{record['id']}: its mask holds no white cell and no platelet, and this run measures cells"
    return (
        f"{record['path']}: carries no mask, and this run measures cells; "
        "give the records of `wbctool segment` and `crop`"
    )
