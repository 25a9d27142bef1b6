"""Figures of a classification, as pure functions of arrays.

Notation: C[i, j] counts images of class i predicted as j, shape (classes, classes). A figure whose
denominator is zero is 0 in averages, as in scikit-learn with `zero_division=0`.
"""

from __future__ import annotations

import numpy as np


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


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole != 0)


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Support, precision, recall, specificity and F1 of each class, each of shape (classes,)."""
    hits = np.diagonal(confusion).astype(np.float64)
    support = confusion.sum(axis=1)
    chosen = confusion.sum(axis=0)
    total = confusion.sum()
    return {
        "support": support,
        "precision": _ratio(hits, chosen),
        "recall": _ratio(hits, support),
        "specificity": _ratio(total - support - chosen + hits, total - support),
        "f1": _ratio(2 * hits, support + chosen),
    }


def matthews(confusion: np.ndarray) -> float:
    """Matthews correlation coefficient for several classes (Gorodkin 2004); 0 where undefined."""
    counts = confusion.astype(np.float64)
    true, chosen, total = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    covariance = np.trace(counts) * total - true @ chosen
    spread = np.sqrt(total**2 - chosen @ chosen) * np.sqrt(total**2 - true @ true)
    return float(covariance / spread) if spread else 0.0


def auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve from ranks, ties counted half; NaN without both kinds.

    Args:
        positive: whether each image is of the class, shape (n,), bool.
        scores: its probability of the class, shape (n,).
    """
    hits = int(positive.sum())
    misses = len(positive) - hits
    if hits == 0 or misses == 0:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[inverse][positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def macro_auc(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean one-vs-rest AUC over the classes that occur; NaN where only one does."""
    areas = [auc(truth == index, probabilities[:, index]) for index in np.unique(truth)]
    return float(np.mean(areas))


def summary(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The main figures.

    Macro averages are over the classes that occur in the truth or among the predictions.

    Args:
        truth: class indices, shape (n,).
        predicted: class indices, shape (n,).
        probabilities: shape (n, classes).
    """
    confusion = confusion_matrix(truth, predicted, probabilities.shape[1])
    each = per_class(confusion)
    met = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    occurs = each["support"] > 0
    return {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "balanced_accuracy": float(each["recall"][occurs].mean()),
        "macro_precision": float(each["precision"][met].mean()),
        "macro_recall": float(each["recall"][met].mean()),
        "macro_f1": float(each["f1"][met].mean()),
        "macro_specificity": float(each["specificity"][met].mean()),
        "macro_auc": macro_auc(truth, probabilities),
        "mcc": matthews(confusion),
    }
