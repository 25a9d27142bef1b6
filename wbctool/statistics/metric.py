"""What a metric declares. The entries are in `wbctool.statistics.metrics`, one small module for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from wbctool.statistics.confusion import ConfusionCounts
    from wbctool.statistics.scores import ScoreCounts, Scores

Place = Literal["summary", "terminal", "paper", "axes"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number that tells how good predictions are. Declare one of the three subclasses below.

    Attributes:
        name: key in JSON and value of `--columns`, such as `macro_f1`.
        title: name of its row in reports.
        help: one line.
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
    column: str = ""
    range: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    source: str = ""
    shown_in: tuple[Place, ...] = ()
    order: int = 1000

    @property
    def header(self) -> str:
        """The header of its column."""
        return self.column or self.title


@dataclass(frozen=True, kw_only=True)
class ConfusionMetric(Metric):
    """A metric of the confusion matrix.

    Attributes:
        compute: of counts whose leading axes are bootstrap draws, the values, shape (…); NaN where undefined.
    """

    compute: Callable[[ConfusionCounts], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ImageMetric(Metric):
    """A metric that is the mean of one value per image.

    Attributes:
        compute: the values of the images, shape (n,).
    """

    compute: Callable[[Scores], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ScoreMetric(Metric):
    """A metric of how probabilities rank images, or of how far they can be trusted.

    Attributes:
        compute: of counts along thresholds and confidence bins whose leading axes are bootstrap draws, the values,
            shape (…); NaN where undefined.
    """

    compute: Callable[[ScoreCounts], np.ndarray]
