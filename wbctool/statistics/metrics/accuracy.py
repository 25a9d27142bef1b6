"""Accuracy, over images and over classes."""

from wbctool.statistics.metrics import Metric

ACCURACY = Metric(
    name="accuracy",
    title="accuracy",
    help="Fraction of images whose predicted class is the true one.",
    compute=lambda counts: counts.ratio(counts.correct, counts.total),
    column="acc.",
    shown_in=("summary", "terminal", "paper", "axes"),
    order=10,
)
BALANCED_ACCURACY = Metric(
    name="balanced_accuracy",
    title="balanced accuracy",
    help="Mean recall of the classes that occur in the truth.",
    compute=lambda counts: counts.mean(counts.per_class["recall"], counts.support > 0),
    source="Brodersen et al. 2010",
    shown_in=("summary", "axes"),
    order=20,
)
