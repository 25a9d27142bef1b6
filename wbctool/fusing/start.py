"""What trees start from: the mean prediction of the runs, with a realistic confidence on training images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from wbctool.inputs.folders import read_inputs
from wbctool.modeling.fused import weighted_log_probabilities
from wbctool.modeling.run_folder import Run
from wbctool.records import PREDICTION
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally

_STEPS = 60  # of a bisection between 0 and 1


def start_weights(runs: Sequence[Run]) -> tuple[float, ...]:
    """Return the weight of each run's log-probabilities: those of a mean, at their temperatures."""
    return tuple(1 / (len(runs) * (run.temperature or 1.0)) for run in runs)


def validation_confidence(run: Run) -> float | None:
    """Return the mean confidence of a run on its own validation images; None where it had none."""
    file = run.path / "predictions.jsonl"
    records = read_inputs([str(file)], Selection(), Tally()) if file.is_file() else ()
    values = [r["confidence"] for r in records if r["schema"] == PREDICTION and r.get("split") == "val"]
    return float(np.mean(values)) if values else None


def limit_confidence(margins: np.ndarray, limit: float | None) -> np.ndarray:
    """Scale margins down until their mean confidence is at most the limit.

    A network is more confident on its training images than on others. Trees that start from that would find nothing
    left to correct.

    Args:
        margins: (n, classes).
        limit: 0 to 1; None leaves the margins as they are.

    Returns:
        (n, classes).
    """
    if limit is None or not len(margins) or _mean_confidence(margins) <= limit:
        return margins
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_confidence(middle * margins) < limit else (low, middle)
    return high * margins


def _mean_confidence(margins: np.ndarray) -> float:
    return float(special.softmax(margins.astype(np.float64), axis=1).max(1).mean())


def start_margins(
    probabilities: Sequence[np.ndarray], weights: Sequence[float], limits: Sequence[float | None], train: np.ndarray
) -> np.ndarray:
    """Compute the margins that trees start from, with the confidence on training images limited.

    Margins of training images do not depend on any other image.

    Args:
        probabilities: of each run, (n, classes).
        weights: of each run.
        limits: of each run, its confidence on validation images, or None.
        train: rows of the training images.

    Returns:
        (n, classes), float32.
    """
    margins = weighted_log_probabilities(probabilities, weights)
    of_runs = [
        limit_confidence(weighted_log_probabilities([rows[train]], [weight * len(weights)]), limit)
        for rows, weight, limit in zip(probabilities, weights, limits, strict=True)
    ]
    margins[train] = np.mean(of_runs, axis=0)
    return margins
