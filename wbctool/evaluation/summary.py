"""The few metrics that are reported of some of the images, and the table that shows metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from wbctool.evaluation.document import Cell, Table, interval_text, value_text
from wbctool.evaluation.predictions import Predictions
from wbctool.statistics.intervals import Draws, Interval, confusion_intervals
from wbctool.statistics.metrics import Metric, metrics_of
from wbctool.statistics.scores import values_of


def summary_of(predictions: Predictions) -> dict[str, Any]:
    """Return `n`, the metrics declared for a summary, and their `intervals`, of one image or more."""
    metrics = metrics_of("confusion", "summary")
    values = values_of(predictions, metrics)
    draws = Draws(predictions.groups)
    intervals, _ = confusion_intervals(draws, predictions.truth, predictions.predicted, len(predictions.classes))
    return {"n": len(predictions.ids), **metric_values(values, intervals)}


def metric_values(values: dict[str, float], intervals: dict[str, Interval]) -> dict[str, Any]:
    """Return metrics and their `intervals` as JSON has them, where undefined ones are None."""
    ends = {name: ends_of(intervals[name]) for name in values}
    return {**{name: none_if_nan(value) for name, value in values.items()}, "intervals": ends}


def none_if_nan(value: float) -> float | None:
    """Return a value as JSON has it."""
    return None if math.isnan(value) else float(value)


def ends_of(interval: Interval) -> list[float] | None:
    """Return the ends of an interval as JSON has them."""
    return None if math.isnan(interval[0]) else list(interval)


def metric_table(
    report: dict[str, Any], metrics: Iterable[Metric], header: str = "value", whole: dict[str, Any] | None = None
) -> Table:
    """Return the metrics of a report or summary, after those of the whole if it is given."""
    rows: list[list[Cell | str]] = []
    for metric in metrics:
        values = [each[metric.name] for each in (whole, report) if each]
        name = Cell(metric.title, hint=f"{metric.help} {metric.source}".strip())
        rows.append([name, *map(value_text, values), interval_text(report["intervals"][metric.name])])
    return Table(["metric", *([f"all {whole['n']:,}"] if whole else []), header, "95 % interval"], rows)


def summary_table(summary: dict[str, Any], title: str, whole: dict[str, Any] | None = None) -> Table:
    """Return the table of a summary, under a title and its number of images."""
    return metric_table(summary, metrics_of("confusion", "summary"), f"{title}: {summary['n']:,}", whole)
