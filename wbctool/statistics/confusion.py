"""The confusion matrix, and the counts that metrics are computed from.

C[…, i, j] counts images of class i predicted as j, shape (…, classes, classes). Leading axes are bootstrap draws, and
every quantity keeps them.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

CLASS_METRICS = ("precision", "recall", "specificity", "f1")


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count images by true and predicted class.

    Args:
        truth: class indices, shape (n,).
        predicted: class indices, shape (n,).
        classes: number of classes.

    Returns:
        Shape (classes, classes), int64.
    """
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def ratio(part: np.ndarray, whole: np.ndarray, undefined: float = 0.0) -> np.ndarray:
    """Divide, with a value for 0 denominators; 0 is that of scikit-learn's `zero_division=0`."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, undefined), where=whole != 0)


class ConfusionCounts:
    """Confusion matrices with the sums that metrics share.

    Attributes:
        confusion: counts, shape (…, classes, classes).
        support, predicted: images and predictions of each class, shape (…, classes).
        total, correct: images, and those predicted correctly, shape (…).
    """

    ratio = staticmethod(ratio)

    def __init__(self, confusion: np.ndarray) -> None:
        self.confusion = confusion
        self.support, self.predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
        self.total, self.correct = self.support.sum(axis=-1), np.trace(confusion, axis1=-2, axis2=-1)

    @cached_property
    def _fractions(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Numerator and denominator of each of `CLASS_METRICS`."""
        correct = np.diagonal(self.confusion, axis1=-2, axis2=-1)
        negatives = self.total[..., None] - self.support
        return {
            "precision": (correct, self.predicted),
            "recall": (correct, self.support),
            "specificity": (negatives - self.predicted + correct, negatives),
            "f1": (2 * correct, self.support + self.predicted),
        }

    @cached_property
    def per_class(self) -> dict[str, np.ndarray]:
        """Each of `CLASS_METRICS`, shape (…, classes); 0 where it is undefined."""
        return {name: ratio(*fraction) for name, fraction in self._fractions.items()}

    @cached_property
    def defined_per_class(self) -> dict[str, np.ndarray]:
        """Each of `CLASS_METRICS`, shape (…, classes); NaN where it is undefined."""
        return {name: ratio(*fraction, undefined=np.nan) for name, fraction in self._fractions.items()}

    def mean(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Average over classes, shape (…); weights, or a mask, of shape (…, classes); NaN where they are all 0."""
        return ratio((values * weights).sum(axis=-1), weights.sum(axis=-1), np.nan)
