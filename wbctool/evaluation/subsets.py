"""The few metrics that are reported of some of the images."""

from __future__ import annotations

import math
from typing import Any

from wbctool.evaluation.document import Table, interval_text, value_text
from wbctool.evaluation.predictions import Predictions
from wbctool.statistics.intervals import Draws, Interval, confusion_intervals
from wbctool.statistics.metric import ConfusionMetric
from wbctool.statistics.metrics import metrics_in
from wbctool.statistics.summary import values_of


def summary_of(predictions: Predictions) -> dict[str, Any]:
    """Return `n`, the metrics declared for a summary, and their `intervals`; undefined ones are None.

    Args:
        predictions: of one image or more.
    """
    metrics = [metric for metric in metrics_in("summary") if isinstance(metric, ConfusionMetric)]
    values = values_of(predictions, metrics)
    draws = Draws(predictions.groups)
    intervals, _ = confusion_intervals(draws, predictions.truth, predictions.predicted, len(predictions.classes))
    return {
        "n": len(predictions.ids),
        **{metric.name: none_if_nan(values[metric.name]) for metric in metrics},
        "intervals": {metric.name: ends_of(intervals[metric.name]) for metric in metrics},
    }


def summary_table(summary: dict[str, Any], title: str, report: dict[str, Any] | None = None) -> Table:
    """Return the metrics of some of the images, beside those of all of them if a report is given."""
    rows = [
        [
            metric.title,
            *([value_text(report[metric.name])] if report else []),
            value_text(summary[metric.name]),
            interval_text(summary["intervals"][metric.name]),
        ]
        for metric in metrics_in("summary")
        if metric.name in summary
    ]
    return Table(
        ["", *([f"all {report['n']:,}"] if report else []), f"{title}: {summary['n']:,}", "95 % interval"], rows
    )


def none_if_nan(value: float) -> float | None:
    """Return a value as JSON has it."""
    return None if math.isnan(value) else float(value)


def ends_of(interval: Interval) -> list[float] | None:
    """Return the ends of an interval as JSON has them."""
    return None if math.isnan(interval[0]) else list(interval)
