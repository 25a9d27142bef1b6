"""The metrics of classification: to add one is to add a module that declares it (see `wbctool.statistics.metric`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from wbctool.pipeline.registry import Registry
from wbctool.statistics.metric import Metric, Place

METRICS = Registry("wbctool.statistics.metrics", Metric, "metric")
M = TypeVar("M", bound=Metric)


def metrics_of(kind: type[M]) -> list[M]:
    """Return the metrics of a class, in the order in which reports list them."""
    return sorted((metric for metric in METRICS if isinstance(metric, kind)), key=lambda metric: metric.order)


def metrics_in(place: Place, names: Sequence[str] = ()) -> list[Metric]:
    """Return the metrics that a place shows: those of `names`, or the ones declared for it."""
    chosen = [METRICS.get(name) for name in names]
    return chosen or [metric for metric in metrics_of(Metric) if place in metric.shown_in]
