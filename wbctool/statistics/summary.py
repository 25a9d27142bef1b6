"""Every metric of one set of predictions."""

from __future__ import annotations

from collections.abc import Iterable

from wbctool.statistics.confusion import ConfusionCounts, confusion_matrix
from wbctool.statistics.metric import ConfusionMetric, ImageMetric, Metric, ScoreMetric
from wbctool.statistics.metrics import metrics_of
from wbctool.statistics.scores import ScoreCounts, Scores


def values_of(scores: Scores, metrics: Iterable[Metric] | None = None) -> dict[str, float]:
    """Compute metrics.

    Args:
        scores: class probabilities and true classes.
        metrics: to compute; by default all.

    Returns:
        By name, in the order of the metrics; NaN where undefined.
    """
    confusion = ConfusionCounts(confusion_matrix(scores.truth, scores.predicted, scores.probabilities.shape[1]))
    counts: ScoreCounts | None = None
    values = {}
    for metric in metrics_of(Metric) if metrics is None else metrics:
        if isinstance(metric, ConfusionMetric):
            value = metric.compute(confusion)
        elif isinstance(metric, ImageMetric):
            value = metric.compute(scores).mean()
        else:
            assert isinstance(metric, ScoreMetric)
            counts = counts or ScoreCounts.of(scores)
            value = metric.compute(counts)
        values[metric.name] = float(value)
    return values
