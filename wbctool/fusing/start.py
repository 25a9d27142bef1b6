"""What trees start from: the networks' own answer, and as sure of training images as of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wbctool.inputs.folders import read_inputs
from wbctool.modeling.fused import weighted_log_probabilities
from wbctool.modeling.run_folder import Run
from wbctool.records import PREDICTION
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally

_STEPS = 60  # of a bisection between none of it and all of it


def start_weights(runs: Sequence[Run]) -> tuple[float, ...]:
    """Of each run, by how much its log-probabilities count: the mean of all, at their temperatures."""
    return tuple(1 / (len(runs) * (run.temperature or 1.0)) for run in runs)


def usual_confidence(run: Run) -> float | None:
    """How sure a run was, in the mean, of the validation images of its own training; None where it had none."""
    file = run.path / "predictions.jsonl"
    records = read_inputs([str(file)], Selection(), Tally()) if file.is_file() else ()
    found = [r["confidence"] for r in records if r["schema"] == PREDICTION and r.get("split") == "val"]
    return float(np.mean(found)) if found else None


def matched(margins: np.ndarray, wanted: float | None) -> np.ndarray:
    """Margins, scaled down until their mean confidence is no more than the wanted one.

    A network is surer of what it has learnt than of what it meets. Trees that start from that would find
    nothing left to mend in training images.

    Args:
        margins: (n, classes).
        wanted: from 0 to 1; None leaves them as they are.

    Returns:
        (n, classes).
    """
    if wanted is None or not len(margins) or _confidence(margins) <= wanted:
        return margins
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _confidence(middle * margins) < wanted else (low, middle)
    return high * margins


def _confidence(margins: np.ndarray) -> float:
    powers = np.exp(margins.astype(np.float64) - margins.max(1, keepdims=True))
    return float((1 / powers.sum(1)).mean())


def margins_of(
    shares: Sequence[np.ndarray], weights: Sequence[float], usual: Sequence[float | None], train: np.ndarray
) -> np.ndarray:
    """The margins of images to start from, those of training images made as sure as a run usually is.

    Nothing of the images outside training enters those of training images.

    Args:
        shares: of each run, probabilities (n, classes).
        weights: of each run.
        usual: of each run its confidence.
        train: places of the training images.

    Returns:
        (n, classes), float32.
    """
    margins = weighted_log_probabilities(shares, weights)
    own = [
        weighted_log_probabilities([share[train]], [weight * len(weights)])
        for share, weight in zip(shares, weights, strict=True)
    ]
    margins[train] = np.mean([matched(each, sure) for each, sure in zip(own, usual, strict=True)], axis=0)
    return margins
