"""Figures of a classification, as pure functions of arrays.

Notation: C[…, i, j] counts images of class i predicted as j, shape (…, classes, classes); leading axes
are draws of a bootstrap, and the figures keep them. A ratio whose denominator is zero is 0 in averages,
as in scikit-learn with `zero_division=0`; a figure that is undefined is NaN.
"""

from __future__ import annotations

import numpy as np

BINS = 15  # of the calibration error, as in Guo et al. 2017
Figures = dict[str, np.ndarray]


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts of (true class, predicted class).

    Args:
        truth: class indices, shape (n,).
        predicted: class indices, shape (n,).
        classes: how many there are.

    Returns:
        Shape (classes, classes), int64.
    """
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _ratio(part: np.ndarray, whole: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    out = np.full(np.broadcast(part, whole).shape, otherwise)
    return np.divide(part, whole, out=out, where=whole != 0)


def per_class(confusion: np.ndarray) -> Figures:
    """Support, precision, recall, specificity and F1 of each class, each of shape (…, classes)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    support = confusion.sum(axis=-1)
    chosen = confusion.sum(axis=-2)
    total = support.sum(axis=-1, keepdims=True)
    return {
        "support": support,
        "precision": _ratio(hits, chosen),
        "recall": _ratio(hits, support),
        "specificity": _ratio(total - support - chosen + hits, total - support),
        "f1": _ratio(2 * hits, support + chosen),
    }


def figures_of(confusion: np.ndarray) -> Figures:
    """The figures that follow from a confusion matrix, each of shape (…).

    Macro averages are over the classes that occur in the truth or among the predictions, balanced accuracy
    over those that occur in the truth, weighted averages by support. MCC and kappa lie in −1 to 1, all else in 0 to 1.
    """
    each = per_class(confusion)
    support, chosen = each["support"].astype(np.float64), confusion.sum(axis=-2).astype(np.float64)
    total, hits = support.sum(axis=-1), np.trace(confusion, axis1=-2, axis2=-1)
    found = {"accuracy": _ratio(hits, total), "balanced_accuracy": _mean(each["recall"], support > 0)}
    for name in ("precision", "recall", "specificity", "f1"):
        found[f"macro_{name}"] = _mean(each[name], support + chosen > 0)
        found[f"weighted_{name}"] = _mean(each[name], support)
    expected = (support * chosen).sum(axis=-1)
    found["mcc"] = _matthews(hits, total, support, chosen)
    found["kappa"] = _ratio(hits * total - expected, total**2 - expected, np.nan)
    return found


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _ratio((values * weights).sum(axis=-1), weights.sum(axis=-1), np.nan)


def _matthews(hits: np.ndarray, total: np.ndarray, support: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    # Gorodkin 2004, for several classes; 0 where undefined, as in scikit-learn
    covariance = hits * total - (support * chosen).sum(axis=-1)
    spread = np.sqrt(total**2 - (chosen**2).sum(axis=-1)) * np.sqrt(total**2 - (support**2).sum(axis=-1))
    return _ratio(covariance, spread)


def steps(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where thresholds fall one after another: hits and false alarms so far, and the thresholds.

    Args:
        positive: whether each image is of the class, shape (n,), bool.
        scores: its probability of the class, shape (n,).

    Returns:
        Hits, false alarms, thresholds from high to low; each of shape (different scores,).
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(positive[order], dtype=np.int64)[last]
    return hits, last + 1 - hits, ranked[last]


def areas(hits: np.ndarray, alarms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The areas under the ROC curve, ties counted half, and average precision, of steps (…, n).

    Counts may be weights. NaN where a kind is missing.
    """
    positives, negatives = hits[..., -1].astype(np.float64), alarms[..., -1].astype(np.float64)
    risen = np.diff(hits, axis=-1, prepend=0).astype(np.float64)
    widened = np.diff(alarms, axis=-1, prepend=0)
    under = ((hits - risen / 2) * widened).sum(axis=-1)
    precision = _ratio(hits, hits + alarms)
    average = (risen * precision).sum(axis=-1)
    return _ratio(under, positives * negatives, np.nan), _ratio(average, positives, np.nan)


def curves(positive: np.ndarray, scores: np.ndarray, most: int = 400) -> dict[str, list[float]]:
    """The ROC and precision-recall curves of a class, of at most so many points.

    Args:
        positive: whether each image is of the class, shape (n,), bool; both kinds must occur.
        scores: its probability of the class, shape (n,).
        most: points that are kept, evenly by rank.

    Returns:
        `fpr` and `tpr`, between which lines are drawn, and `recall` and `precision`, which holds up to its recall
        from the one before; all start at 0 but precision.
    """
    hits, alarms, _ = steps(positive, scores)
    kept = np.unique(np.linspace(0, len(hits) - 1, most).round().astype(np.int64))
    hits, alarms = hits[kept], alarms[kept]
    tpr, fpr = hits / positive.sum(), alarms / (~positive).sum()
    precision = hits / (hits + alarms)
    return {
        "fpr": [0.0, *fpr.tolist()],
        "tpr": [0.0, *tpr.tolist()],
        "recall": [0.0, *tpr.tolist()],
        "precision": [float(precision[0]), *precision.tolist()],
    }


def log_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The log loss of each image, shape (n,); probabilities are kept from 0 by the smallest step of float64."""
    own = probabilities[np.arange(len(truth)), truth]
    return -np.log(np.clip(own, np.finfo(np.float64).eps, 1.0))


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Which of the bins of equal width, open below, each confidence lies in, shape (n,)."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def calibration_error(counts: np.ndarray, confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The expected calibration error (Guo et al. 2017, eq. 3), shape (…).

    Args:
        counts: images in each bin of confidence, (…, bins).
        confidence: the sum of their confidences, likewise.
        right: how many of them are right, likewise.
    """
    return _ratio(np.abs(right - confidence).sum(axis=-1), counts.sum(axis=-1), np.nan)


def score_figures(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The figures that need probabilities; macro averages are over the classes that occur in the truth.

    Areas are NaN where only one class occurs; the log loss is at most 36.04, as probabilities are clipped.

    Args:
        truth: class indices, shape (n,).
        predicted: class indices, shape (n,).
        probabilities: shape (n, classes).
    """
    found = []
    for index in np.unique(truth):
        hits, alarms, _ = steps(truth == index, probabilities[:, index])
        found.append(areas(hits, alarms))
    under, average = np.array(found).T
    confidence = probabilities[np.arange(len(truth)), predicted]
    bins = confidence_bins(confidence)
    sums = [np.bincount(bins, weights, BINS) for weights in (None, confidence, truth == predicted)]
    return {
        "macro_auc": float(under.mean()),
        "macro_average_precision": float(average.mean()),
        "log_loss": float(log_losses(truth, probabilities).mean()),
        "calibration_error": float(calibration_error(*sums)),
    }


def summary(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """All figures of one set of predictions.

    Args:
        truth: class indices, shape (n,).
        predicted: class indices, shape (n,).
        probabilities: shape (n, classes).
    """
    confusion = confusion_matrix(truth, predicted, probabilities.shape[1])
    return {
        **{name: float(value) for name, value in figures_of(confusion).items()},
        **score_figures(truth, predicted, probabilities),
    }
