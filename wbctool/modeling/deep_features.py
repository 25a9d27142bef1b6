"""Deep features: what a network makes of an image before its last layers, and what it says of it."""

from __future__ import annotations

import numpy as np
import torch

from wbctool.device import autocast, images_at_once
from wbctool.modeling.kinds import Network
from wbctool.modeling.predictor import symmetries

_KEPT = 11  # bits of a feature's mantissa


def deep_features(model: Network, images: torch.Tensor, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features and class probabilities of a batch, in one pass; means over the views a model predicts by.

    Args:
        model: a classifier or an ensemble of these.
        images: (n, 3, size, size), uint8 or float from 0 to 255, on the model's device.
        precision: `float32` or `bf16`.

    Returns:
        Features (n, width), float32, rounded to 11 bits: a last digit that depends on the batch must not send a
        cell down another branch; and probabilities (n, classes), float64.
    """
    vectors, shares = [], []
    count = model.architecture.symmetries
    with torch.inference_mode(), autocast(images.device, precision):
        for part in images.split(images_at_once(images.device)):
            seen = [model.seen(view) for view in symmetries(part, count)]
            vectors.append(torch.stack([vector.float() for vector, _ in seen]).mean(0))
            shares.append(torch.stack([torch.softmax(logits.double(), 1) for _, logits in seen]).mean(0))
    return rounded(torch.cat(vectors).cpu().numpy()), torch.cat(shares).cpu().numpy()


def rounded(values: np.ndarray) -> np.ndarray:
    """Float32 values to the nearest of 11 bits; what is not finite stays so."""
    drop = 23 - _KEPT
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(1 << (drop - 1))) & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    return np.where(np.isfinite(values), nearest.view(np.float32), values)
