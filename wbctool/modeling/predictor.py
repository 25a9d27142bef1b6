"""Prediction records from images: in fixed batches, streamed, and resumable into a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from wbctool.device import autocast, images_at_once
from wbctool.records import PREDICTION, Record

if TYPE_CHECKING:
    from wbctool.modeling.kinds import Model

BATCH = 64


def probabilities(
    model: Model,
    images: torch.Tensor,
    precision: str,
    views: int | None = None,
    measures: np.ndarray | None = None,
) -> np.ndarray:
    """Class probabilities of a batch: the mean over as many symmetries of the square as the model asks for.

    Args:
        model: returns logits (n, classes).
        images: (n, 3, size, size), uint8, on the model's device.
        precision: `float32` or `bf16`.
        views: symmetries, 1 to 8, in place of the model's own number.
        measures: of the cells, (n, measures), for a model that asks for them.

    Returns:
        Shape (n, classes), float64; rows sum to 1.
    """
    count = views or model.architecture.symmetries
    asked = measures if model.architecture.measures else None
    shares = []
    step = images_at_once(images.device)
    with torch.inference_mode(), autocast(images.device, precision):
        for start, part in zip(range(0, len(images), step), images.split(step), strict=True):
            more = [] if asked is None else [asked[start : start + step]]
            each = [torch.softmax(model(view, *more).double(), dim=1) for view in symmetries(part, count)]
            shares.append(torch.stack(each).mean(0))
    return torch.cat(shares).cpu().numpy()


def symmetries(images: torch.Tensor, count: int) -> list[torch.Tensor]:
    """The first `count` of the eight symmetries of the square, of a batch (n, channels, side, side)."""
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
    """The prediction for one image: its record with what was predicted added.

    Args:
        record: of the image.
        run: name of the run.
        classes: their names.
        row: their probabilities, shape (classes,).
        threshold: confidence under which it is uncertain.
        temperature: by which the logits were divided, where the run has one.
    """
    best = int(np.argmax(row))
    made = {
        **record,
        "schema": PREDICTION,
        "run": run,
        "predicted": classes[best],
        "confidence": _rounded(row[best]),
        "probabilities": {name: _rounded(share) for name, share in zip(classes, row, strict=True)},
    }
    if temperature is not None:
        made["temperature"] = temperature
    return with_uncertainty(made, threshold)


def _rounded(share: float) -> float:
    return float(f"{share:.6g}")  # digits, not decimals: the log loss is made of small ones


def with_uncertainty(record: Record, threshold: float | None) -> Record:
    """The prediction marked uncertain where its confidence is under the threshold."""
    return record if threshold is None else {**record, "uncertain": record["confidence"] < threshold}


def unmeasured(record: Record) -> str:
    """Why nothing can be measured of a record's cell."""
    if isinstance(record.get("mask"), str):
        return f"{record['id']}: its mask holds no white cell and no platelet, and this run measures cells"
    return (
        f"{record['path']}: carries no mask, and this run measures cells; "
        "give the records of `wbctool segment` and `crop`"
    )
