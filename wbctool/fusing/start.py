"""What trees start from: the networks' own answer, and as sure of training images as of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wbctool.modeling.fused import starts
from wbctool.modeling.run_folder import Run

_STEPS = 60  # of a bisection between none of it and all of it


def start_weights(runs: Sequence[Run]) -> tuple[float, ...]:
    """Of each run, by how much its log-probabilities count: the mean of all, at their temperatures."""
    return tuple(1 / (len(runs) * (run.temperature or 1.0)) for run in runs)


def matched(train: np.ndarray, val: np.ndarray) -> np.ndarray:
    """Margins of training images, scaled down so that their mean confidence is that of validation images.

    A network is surer of what it has learnt than of what it meets. Trees that start from that would find
    nothing left to mend in training images.

    Args:
        train: (n, classes).
        val: (m, classes); where there are none, nothing is scaled.

    Returns:
        (n, classes), float32.
    """
    if not len(val):
        return train
    wanted = _confidence(val)
    if _confidence(train) <= wanted:
        return train
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _confidence(middle * train) < wanted else (low, middle)
    return (high * train).astype(np.float32)


def _confidence(margins: np.ndarray) -> float:
    powers = np.exp(margins.astype(np.float64) - margins.max(1, keepdims=True))
    return float((1 / powers.sum(1)).mean())


def margins_of(
    shares: Sequence[np.ndarray], weights: Sequence[float], train: np.ndarray, val: np.ndarray
) -> np.ndarray | None:
    """The margins of all images to start from, those of training images matched to validation's.

    Args:
        shares: of each run, probabilities (n, classes).
        weights: of each run; none for no start.
        train: places of the training images.
        val: of the validation images.
    """
    margins = starts(shares, weights)
    if margins is not None:
        margins[train] = matched(margins[train], margins[val])
    return margins
