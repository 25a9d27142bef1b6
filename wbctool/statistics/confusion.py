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
    """A confusion matrix, or one for each bootstrap draw, with the sums that metrics share.

    Args:
        confusion: counts, shape (…, classes, classes).
    """

    ratio = staticmethod(ratio)

    def __init__(self, confusion: np.ndarray) -> None:
        self.confusion = confusion

    @cached_property
    def support(self) -> np.ndarray:
        """Images of each class, shape (…, classes)."""
        return self.confusion.sum(axis=-1)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Predictions of each class, shape (…, classes)."""
        return self.confusion.sum(axis=-2)

    @cached_property
    def correct(self) -> np.ndarray:
        """Correct predictions, shape (…)."""
        return np.trace(self.confusion, axis1=-2, axis2=-1)

    @cached_property
    def total(self) -> np.ndarray:
        """Images, shape (…)."""
        return self.support.sum(axis=-1)

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
        """Average over classes, shape (…); NaN where all weights are 0.

        Args:
            values: of each class, shape (…, classes).
            weights: likewise; booleans choose classes.
        """
        return ratio((values * weights).sum(axis=-1), weights.sum(axis=-1), np.nan)
