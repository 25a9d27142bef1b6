"""What metrics are computed from: class probabilities, confusion matrices, and counts along thresholds and in bins.

C[…, i, j] of a confusion matrix counts images of class i predicted as j, shape (…, classes, classes). Leading axes are
bootstrap draws, and every quantity keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wbctool.statistics.metrics import Metric, metrics_of

CLASS_METRICS = ("precision", "recall", "specificity", "f1")
BINS = 15  # of confidence, as in Guo et al. 2017


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count images by true and predicted class indices, shape (n,) each."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def ratio(part: np.ndarray, whole: np.ndarray, undefined: float = 0.0) -> np.ndarray:
    """Divide, with a value for 0 denominators; 0 is that of scikit-learn's `zero_division=0`."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, undefined), where=whole != 0)


class ConfusionCounts:
    """Confusion matrices with the sums that metrics share.

    `support` and `predicted` are the images and the predictions of each class, shape (…, classes); `total` and
    `correct` the images and those predicted correctly, shape (…).
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


@dataclass
class Scores:
    """Class probabilities of n images, shape (n, classes), and the indices of true and predicted classes, (n,)."""

    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probability of the predicted class, shape (n,)."""
        return self.probabilities[np.arange(len(self.predicted)), self.predicted]

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each predicted class is the true one, shape (n,), bool."""
        return self.truth == self.predicted

    @property
    def log_losses(self) -> np.ndarray:
        """The log loss of each image, shape (n,); probabilities are clipped at the smallest step of float64."""
        of_truth = self.probabilities[np.arange(len(self.truth)), self.truth]
        return -np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1.0))


@dataclass
class ScoreCounts:
    """Counts along thresholds and in bins of confidence, of all images or of each bootstrap draw (leading axes).

    `steps` are, of each class that occurs in the truth, true and false positives as the threshold falls, shape (…,
    steps) each; the others are sums over the images in each bin of confidence, shape (…, bins).
    """

    steps: Sequence[tuple[np.ndarray, np.ndarray]]
    images: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray

    @classmethod
    def of(cls, scores: Scores) -> ScoreCounts:
        """Count all images, with a step at every distinct probability."""
        classes = np.unique(scores.truth)
        steps = [threshold_steps(scores.truth == index, scores.probabilities[:, index])[:2] for index in classes]
        bins = confidence_bins(scores.confidence)
        return cls(steps, *(np.bincount(bins, weights, BINS) for weights in (None, scores.confidence, scores.correct)))

    @cached_property
    def mean_areas(self) -> tuple[np.ndarray, ...]:
        """Area under the ROC curve and average precision, means over classes, shape (…) each; NaN where undefined."""
        areas = np.array([curve_areas(*steps) for steps in self.steps])
        known = np.isfinite(areas)  # np.nanmean would warn where nothing is
        sums = [np.where(known[:, kind], areas[:, kind], 0).sum(axis=0) for kind in (0, 1)]
        return tuple(map(ratio, sums, known.sum(axis=0), (np.nan, np.nan)))

    @property
    def calibration_error(self) -> np.ndarray:
        """The expected calibration error (Guo et al. 2017, eq. 3), shape (…)."""
        return ratio(np.abs(self.correct - self.confidence).sum(axis=-1), self.images.sum(axis=-1), np.nan)


def values_of(scores: Scores, metrics: Iterable[Metric] | None = None) -> dict[str, float]:
    """Compute metrics, by default all; the values by name, NaN where undefined."""
    chosen = list(metrics_of() if metrics is None else metrics)
    confusion = confusion_matrix(scores.truth, scores.predicted, scores.probabilities.shape[1])
    bases = {"confusion": ConfusionCounts(confusion), "images": scores}
    if any(metric.basis == "scores" for metric in chosen):
        bases["scores"] = ScoreCounts.of(scores)
    return {metric.name: float(metric.compute(bases[metric.basis]).mean()) for metric in chosen}


def threshold_steps(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count true and false positives as the threshold falls from one distinct score to the next, which comes last.

    `positive` is whether each image is of a class, `scores` are its probabilities of it, shape (n,); the results have
    shape (distinct scores,).
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true_positives = np.cumsum(positive[order], dtype=np.int64)[last]
    return true_positives, last + 1 - true_positives, ranked[last]


def curve_areas(true_positives: np.ndarray, false_positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the area under the ROC curve, ties counted half, and average precision.

    scikit-learn's functions take one set of images; these take the counts of all draws of a bootstrap at once, shape
    (…, steps). NaN where there are no positives, or for the ROC curve no negatives.
    """
    positives, negatives = (counts[..., -1].astype(np.float64) for counts in (true_positives, false_positives))
    rise = np.diff(true_positives, axis=-1, prepend=0).astype(np.float64)
    width = np.diff(false_positives, axis=-1, prepend=0)
    under = ((true_positives - rise / 2) * width).sum(axis=-1)
    average = (rise * ratio(true_positives, true_positives + false_positives)).sum(axis=-1)
    return ratio(under, positives * negatives, np.nan), ratio(average, positives, np.nan)


def curves(positive: np.ndarray, scores: np.ndarray, points: int = 400) -> dict[str, list[float]]:
    """Return the ROC and precision–recall curves of a class, of at most so many points, evenly by rank.

    Lines are drawn between `fpr` and `tpr`; `precision` holds up to its `recall` from the one before. Arguments are as
    of `threshold_steps`, but positives and negatives must both occur.
    """
    true_positives, false_positives, _ = threshold_steps(positive, scores)
    kept = np.unique(np.linspace(0, len(true_positives) - 1, points).round().astype(np.int64))
    true_positives, false_positives = true_positives[kept], false_positives[kept]
    tpr, fpr = true_positives / positive.sum(), false_positives / (~positive).sum()
    precision = true_positives / (true_positives + false_positives)
    recall = [0.0, *tpr.tolist()]
    precisions = [float(precision[0]), *precision.tolist()]
    return {"fpr": [0.0, *fpr.tolist()], "tpr": recall, "recall": recall, "precision": precisions}


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the index of the bin of each confidence, shape (n,); bins have equal width and are open below."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
