"""Log loss."""

from __future__ import annotations

from wbctool.statistics.metric import ImageMetric

LOG_LOSS = ImageMetric(
    name="log_loss",
    title="log loss",
    help="Mean of −log of the true class' probability; at most 36.04, as probabilities are clipped at 2.2e-16.",
    range=(0.0, 36.05),
    higher_is_better=False,
    order=150,
    compute=lambda scores: scores.log_losses,
)
