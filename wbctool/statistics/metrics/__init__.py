"""The metrics of classification: to add one is to add a module here that declares a `Metric`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wbctool.pipeline.registry import Registry

if TYPE_CHECKING:
    import numpy as np

Basis = Literal["confusion", "scores", "images"]
View = Literal["summary", "terminal", "paper", "axes"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number that says how good predictions are.

    Attributes:
        name: key in JSON and value of `--columns`, such as `macro_f1`.
        title: name of its row in reports.
        help: one line.
        compute: the values, shape (…), of `ConfusionCounts` or `ScoreCounts` whose leading axes are bootstrap draws,
            NaN where undefined; or the values of all images, shape (n,), of `Scores`, whose mean is the metric.
        basis: which of these it is computed from: `confusion`, `scores` or `images`.
        column: short header for tables of several runs; without one, the title.
        range: lowest and highest value.
        higher_is_better: which end of the range is the good one.
        source: where it is defined.
        shown_in: `summary` of some of the images, table of runs on a `terminal` or for a `paper`, `axes` of the plot of
            runs. The report of a single run shows every metric.
        order: in which reports list metrics; new ones come last.
    """

    name: str
    title: str
    help: str
    compute: Callable[[Any], np.ndarray]
    basis: Basis = "confusion"
    column: str = ""
    range: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    source: str = ""
    shown_in: tuple[View, ...] = ()
    order: int = 1000


METRICS = Registry("wbctool.statistics.metrics", Metric, "metric")


def metrics_of(basis: Basis | None = None, view: View | None = None, names: Sequence[str] = ()) -> list[Metric]:
    """Return the metrics of a basis or view, by default all, in the order of reports; those of `names` if given."""
    chosen = [each for each in METRICS if basis in (None, each.basis) and view in (None, *each.shown_in)]
    return [METRICS.get(name) for name in names] or sorted(chosen, key=lambda metric: metric.order)
