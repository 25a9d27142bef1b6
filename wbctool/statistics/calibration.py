"""Confidence: temperature, reliability, and the trade of coverage against error."""

from __future__ import annotations

import numpy as np

from wbctool.statistics.metrics import BINS, confidence_bins, log_losses

_BOUNDS = (0.05, 20.0)  # of a temperature
_SPREAD = 1.0  # standard deviation of log T beforehand: where all is right, T would be 0
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)


def scaled(probabilities: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Probabilities whose logits are divided by a temperature; with 1/T, those before.

    Args:
        probabilities: shape (n, classes), rows sum to 1.
        temperature: one, or one for each row, shape (n,); above 1 makes less sure.

    Returns:
        Shape (n, classes), float64; rows sum to 1, their order stays.
    """
    rows = np.broadcast_to(np.asarray(temperature, np.float64), len(probabilities))[:, None]
    powers = (probabilities / probabilities.max(axis=1, keepdims=True)) ** (1 / rows)
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature of least log loss (Guo et al. 2017, section 4.2), kept from extremes where images are few.

    Args:
        truth: class indices of validation images, shape (n,).
        probabilities: shape (n, classes).

    Returns:
        From 0.05 to 20; 1 for no images.
    """
    from scipy import optimize  # only trainings need it

    if not len(truth):
        return 1.0

    def loss(logarithm: float) -> float:
        own = log_losses(truth, scaled(probabilities, float(np.exp(logarithm)))).sum()
        return float(own + logarithm**2 / (2 * _SPREAD**2))

    low, high = np.log(_BOUNDS)
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(found.x)), 4)


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """How often predictions of like confidence are right: 15 bins of equal width, those with images.

    Args:
        confidence: of the predicted class, shape (n,).
        right: whether it is the true one, shape (n,), bool.

    Returns:
        Of each bin its ends, `above` and `to`, `n`, mean `confidence` and `accuracy`.
    """
    bins = confidence_bins(confidence)
    found = []
    for number in np.unique(bins):
        inside = bins == number
        found.append(
            {
                "above": int(number) / BINS,
                "to": (int(number) + 1) / BINS,
                "n": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
            }
        )
    return found


def risk(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coverage and error at every threshold of confidence (El-Yaniv and Wiener 2010).

    Args:
        confidence: shape (n,).
        right: shape (n,), bool.

    Returns:
        Thresholds from high to low, the share of images at or above each, and the share of errors among
        those; each of shape (different confidences,).
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    wrong = np.cumsum(~right[order])[last]
    return ranked[last], (last + 1) / len(ranked), wrong / (last + 1)


def coverage_table(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """The error among the surest predictions, at some coverages; ties are kept together.

    Args:
        confidence: of each prediction, (n,), 0 to 1.
        right: whether it is, (n,), bool.

    Returns:
        Rows of `coverage`, `error` (both shares) and the `threshold` that leaves them.
    """
    thresholds, coverage, error = risk(confidence, right)
    rows = []
    for wanted in COVERAGES:
        place = int(np.searchsorted(coverage, wanted - 1e-12))
        row = {
            "coverage": float(coverage[place]),
            "error": float(error[place]),
            "threshold": float(thresholds[place]),
        }
        if row not in rows:
            rows.append(row)
    return rows


def threshold_for(confidence: np.ndarray, right: np.ndarray, target: float) -> float | None:
    """The least threshold that leaves an error of no more than the target; None where none does.

    Args:
        confidence: of each prediction, (n,), 0 to 1.
        right: whether it is, (n,), bool.
        target: a share, 0 to 1.
    """
    thresholds, _, error = risk(confidence, right)
    reached = np.flatnonzero(error <= target)
    return float(thresholds[reached[-1]]) if len(reached) else None
