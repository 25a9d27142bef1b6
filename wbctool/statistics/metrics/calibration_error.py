"""Expected calibration error."""

from __future__ import annotations

from wbctool.statistics.metric import ScoreMetric

CALIBRATION_ERROR = ScoreMetric(
    name="calibration_error",
    title="calibration error",
    help="Mean distance between confidence and accuracy over 15 bins of confidence, weighted by their images.",
    higher_is_better=False,
    source="Guo et al. 2017, eq. 3",
    order=160,
    compute=lambda counts: counts.calibration_error,
)
