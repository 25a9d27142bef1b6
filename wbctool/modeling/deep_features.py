"""Deep features: what the last layers of a network take, and the probabilities they give."""

from __future__ import annotations

import numpy as np
import torch

from wbctool.device import autocast, images_at_once
from wbctool.modeling.model_types import Model
from wbctool.modeling.predictor import symmetries

_MANTISSA_BITS = 11  # of a feature


def deep_features(model: Model, images: torch.Tensor, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pooled features and class probabilities of a batch, in one pass; means over the model's symmetries.

    Images are (n, 3, size, size), uint8 or float from 0 to 255, on the model's device. Features (n, width), float32,
    are rounded to 11 bits, as a last digit that depends on the batch must not send a cell down another branch;
    probabilities (n, classes) are float64.
    """
    features, probabilities = [], []
    count = model.architecture.symmetries
    with torch.inference_mode(), autocast(images.device, precision):
        for chunk in images.split(images_at_once(images.device)):
            outputs = [model.forward_features(view) for view in symmetries(chunk, count)]
            features.append(torch.stack([vector.float() for vector, _ in outputs]).mean(0))
            probabilities.append(torch.stack([torch.softmax(logits.double(), 1) for _, logits in outputs]).mean(0))
    return rounded(torch.cat(features).cpu().numpy()), torch.cat(probabilities).cpu().numpy()


def rounded(values: np.ndarray) -> np.ndarray:
    """Round float32 values to 11 bits of mantissa; what is not finite stays so."""
    drop = 23 - _MANTISSA_BITS
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(1 << (drop - 1))) & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    return np.where(np.isfinite(values), nearest.view(np.float32), values)
