"""Calibration: temperature scaling, reliability, and the risk–coverage curve.

Confidence is the probability of the predicted class, `correct` is whether that is the true one: shape (n,) each.
"""

from __future__ import annotations

import numpy as np

from wbctool.statistics.counts import BINS, Scores, confidence_bins, threshold_steps

_BOUNDS = (0.05, 20.0)  # of a temperature
_SPREAD = 1.0  # standard deviation of log T in the prior: where all predictions are correct, T would be 0
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)


def scaled(probabilities: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Divide the logits of probabilities, shape (n, classes), by a temperature, or by one for each row, shape (n,).

    A temperature above 1 lowers confidence, 1/T undoes T; the order within a row stays, and rows sum to 1.
    """
    rows = np.broadcast_to(np.asarray(temperature, np.float64), len(probabilities))[:, None]
    powers = (probabilities / probabilities.max(axis=1, keepdims=True)) ** (1 / rows)
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Fit the temperature of least log loss (Guo et al. 2017, section 4.2), with a prior for few images.

    The truth is class indices, shape (n,), of probabilities (n, classes). From 0.05 to 20; 1 for no images.
    """
    from scipy import optimize  # only training needs it

    if not len(truth):
        return 1.0

    def loss(logarithm: float) -> float:
        rescaled = scaled(probabilities, float(np.exp(logarithm)))
        return float(Scores(truth, truth, rescaled).log_losses.sum() + logarithm**2 / (2 * _SPREAD**2))

    low, high = np.log(_BOUNDS)
    result = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(result.x)), 4)


def reliability(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, float]]:
    """Compare confidence, shape (n,), with accuracy in 15 bins of equal width; bins without images are left out."""
    bins = confidence_bins(confidence)
    return [
        {
            "above": number / BINS,
            "to": (number + 1) / BINS,
            "n": int((bins == number).sum()),
            "confidence": float(confidence[bins == number].mean()),
            "accuracy": float(correct[bins == number].mean()),
        }
        for number in np.unique(bins).tolist()
    ]


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the risk–coverage curve (El-Yaniv and Wiener 2010): each of shape (distinct confidences,).

    Thresholds of confidence from high to low, the fraction of images at or above each (coverage), and the fraction of
    errors among those (risk).
    """
    errors, others, thresholds = threshold_steps(~correct, confidence)
    return thresholds, (errors + others) / len(correct), errors / (errors + others)


def coverage_table(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, float]]:
    """Return the error among the most confident predictions at some coverages; ties stay together."""
    thresholds, coverage, error = risk_coverage(confidence, correct)
    wanted = np.unique(np.searchsorted(coverage, np.array(COVERAGES) - 1e-12))[::-1].tolist()
    return [
        {"coverage": float(coverage[k]), "error": float(error[k]), "threshold": float(thresholds[k])} for k in wanted
    ]


def threshold_for(confidence: np.ndarray, correct: np.ndarray, target: float) -> float | None:
    """Find the lowest threshold that leaves an error of at most the target, a fraction; None if none does."""
    thresholds, _, error = risk_coverage(confidence, correct)
    reached = np.flatnonzero(error <= target)
    return float(thresholds[reached[-1]]) if len(reached) else None
