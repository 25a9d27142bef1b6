"""Class probabilities and deep features of images, and prediction records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from wbctool.device import autocast, images_at_once
from wbctool.modeling.model_types import Model
from wbctool.records import PREDICTION, Record

BATCH = 64
_MANTISSA_BITS = 11  # of a feature


def probabilities(
    model: Model, images: torch.Tensor, precision: str, views: int | None = None, measures: np.ndarray | None = None
) -> np.ndarray:
    """Return class probabilities of a batch, (n, classes), float64: the mean over symmetries of the square.

    Images are (n, 3, size, size), uint8, on the model's device. `views` is the number of symmetries, 1 to 8, in place
    of the model's; `measures` (n, measures) are those of the cells, for a model that takes them.
    """
    count = views or model.architecture.symmetries
    rows = []
    step = images_at_once(images.device)
    with torch.inference_mode(), autocast(images.device, precision):
        for start, chunk in zip(range(0, len(images), step), images.split(step), strict=True):
            more = [measures[start : start + step]] if model.architecture.measures and measures is not None else []
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


def deep_features(model: Model, images: torch.Tensor, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pooled features and class probabilities of a batch, in one pass; means over the model's symmetries.

    Images are (n, 3, size, size), uint8 or float from 0 to 255, on the model's device. Features (n, width), float32,
    are rounded to 11 bits, as a last digit that depends on the batch must not send a cell down another branch;
    probabilities (n, classes) are float64.
    """
    features, rows = [], []
    count = model.architecture.symmetries
    with torch.inference_mode(), autocast(images.device, precision):
        for chunk in images.split(images_at_once(images.device)):
            outputs = [model.forward_features(view) for view in symmetries(chunk, count)]
            features.append(torch.stack([vector.float() for vector, _ in outputs]).mean(0))
            rows.append(torch.stack([torch.softmax(logits.double(), 1) for _, logits in outputs]).mean(0))
    return rounded(torch.cat(features).cpu().numpy()), torch.cat(rows).cpu().numpy()


def rounded(values: np.ndarray) -> np.ndarray:
    """Round float32 values to 11 bits of mantissa; what is not finite stays so."""
    drop = 23 - _MANTISSA_BITS
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(1 << (drop - 1))) & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    return np.where(np.isfinite(values), nearest.view(np.float32), values)


def prediction_record(
    record: Record, run: str, classes: Sequence[str], row: np.ndarray, temperature: float | None = None
) -> Record:
    """Return the prediction for one image: its record with the predicted class and all probabilities (classes,).

    `temperature` is what the logits were divided by, where the run is calibrated.
    """
    predicted = classes[int(np.argmax(row))]
    # significant digits, not decimals, as the log loss depends on small values
    rows = {name: float(f"{probability:.6g}") for name, probability in zip(classes, row, strict=True)}
    prediction = {"run": run, "predicted": predicted, "confidence": rows[predicted], "probabilities": rows}
    calibration = {} if temperature is None else {"temperature": temperature}
    return {**record, "schema": PREDICTION, **prediction, **calibration}


def missing_measures(record: Record) -> str:
    """Return the error for a record whose cell cannot be measured."""
    if isinstance(record.get("mask"), str):
        return f"{record['id']}: its mask holds no white cell and no platelet, and this run measures cells"
    return (
        f"{record['path']}: carries no mask, and this run measures cells; "
        "give the records of `wbctool segment` and `crop`"
    )
