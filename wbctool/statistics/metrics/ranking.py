"""Areas under the ROC and precision–recall curves of each class against the rest."""

from __future__ import annotations

from wbctool.statistics.metric import ScoreMetric

MACRO_AUC = ScoreMetric(
    name="macro_auc",
    title="macro AUC (one vs rest)",
    help="Mean area under the ROC curves of the classes that occur in the truth, each against the rest.",
    column="AUC",
    shown_in=("terminal", "paper", "axes"),
    order=110,
    compute=lambda counts: counts.mean_areas[0],
)
MACRO_AVERAGE_PRECISION = ScoreMetric(
    name="macro_average_precision",
    title="macro average precision",
    help="Mean average precision of the classes that occur in the truth, each against the rest.",
    order=120,
    compute=lambda counts: counts.mean_areas[1],
)
