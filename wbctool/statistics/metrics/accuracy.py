"""Accuracy, over images and over classes."""

from __future__ import annotations

from wbctool.statistics.metric import ConfusionMetric

ACCURACY = ConfusionMetric(
    name="accuracy",
    title="accuracy",
    help="Fraction of images whose predicted class is the true one.",
    column="acc.",
    shown_in=("summary", "terminal", "paper", "axes"),
    order=10,
    compute=lambda counts: counts.ratio(counts.correct, counts.total),
)
BALANCED_ACCURACY = ConfusionMetric(
    name="balanced_accuracy",
    title="balanced accuracy",
    help="Mean recall of the classes that occur in the truth.",
    column="bal. acc.",
    source="Brodersen et al. 2010",
    shown_in=("summary", "axes"),
    order=20,
    compute=lambda counts: counts.mean(counts.per_class["recall"], counts.support > 0),
)
