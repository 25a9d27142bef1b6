"""Agreement of truth and predictions beyond chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.statistics.metrics import Metric

if TYPE_CHECKING:
    import numpy as np

    from wbctool.statistics.counts import ConfusionCounts


def _matthews(counts: ConfusionCounts) -> np.ndarray:
    import numpy as np

    total, support, predicted = counts.total, counts.support, counts.predicted
    covariance = counts.correct * total - (support * predicted).sum(axis=-1)
    spread = np.sqrt(total**2 - (predicted**2).sum(axis=-1)) * np.sqrt(total**2 - (support**2).sum(axis=-1))
    return counts.ratio(covariance, spread)


def _kappa(counts: ConfusionCounts) -> np.ndarray:
    expected = (counts.support * counts.predicted).sum(axis=-1)
    return counts.ratio(counts.correct * counts.total - expected, counts.total**2 - expected, undefined=float("nan"))


MCC = Metric(
    name="mcc",
    title="MCC",
    help="Matthews correlation coefficient for several classes; 0 where it is undefined, as in scikit-learn.",
    compute=_matthews,
    range=(-1.0, 1.0),
    source="Gorodkin 2004",
    shown_in=("summary", "terminal", "paper", "axes"),
    order=130,
)
KAPPA = Metric(
    name="kappa",
    title="Cohen's kappa",
    help="Accuracy beyond that of random predictions with the same class frequencies.",
    compute=_kappa,
    range=(-1.0, 1.0),
    source="Cohen 1960",
    order=140,
)
