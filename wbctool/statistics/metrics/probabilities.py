"""Metrics of probabilities: how they rank images, and how far they can be trusted."""

from wbctool.statistics.metrics import Metric

MACRO_AUC = Metric(
    name="macro_auc",
    title="macro AUC (one vs rest)",
    help="Mean area under the ROC curves of the classes that occur in the truth, each against the rest.",
    compute=lambda counts: counts.mean_areas[0],
    basis="scores",
    column="AUC",
    shown_in=("terminal", "paper", "axes"),
    order=110,
)
MACRO_AVERAGE_PRECISION = Metric(
    name="macro_average_precision",
    title="macro average precision",
    help="Mean average precision of the classes that occur in the truth, each against the rest.",
    compute=lambda counts: counts.mean_areas[1],
    basis="scores",
    order=120,
)
LOG_LOSS = Metric(
    name="log_loss",
    title="log loss",
    help="Mean of −log of the true class' probability; at most 36.04, as probabilities are clipped at 2.2e-16.",
    compute=lambda scores: scores.log_losses,
    basis="images",
    range=(0.0, 36.05),
    higher_is_better=False,
    order=150,
)
CALIBRATION_ERROR = Metric(
    name="calibration_error",
    title="calibration error",
    help="Mean distance between confidence and accuracy over 15 bins of confidence, weighted by their images.",
    compute=lambda counts: counts.calibration_error,
    basis="scores",
    higher_is_better=False,
    source="Guo et al. 2017, eq. 3",
    order=160,
)
