"""95 % intervals of metrics by a bootstrap over groups, so that copies of one image do not count as several.

Groups (patients, slides, originals; without any, images) are drawn with replacement (Davison and Hinkley 1997, section
3.8). Intervals are BCa (Efron 1987), their levels widened for few groups by Student's t and by √(G/(G-1)) (Hesterberg
2015, section 4.5). `scipy.stats.bootstrap` knows no groups and computes each metric from resampled images; here all
metrics come from one table of sums per group, which a million images need.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np
from scipy import sparse, special

from wbctool.statistics.counts import BINS, CLASS_METRICS, ConfusionCounts, ScoreCounts, Scores, confidence_bins
from wbctool.statistics.metrics import metrics_of

Interval = tuple[float, float]
LEVEL = 0.95
UNDEFINED = (float("nan"), float("nan"))
_MOST_DRAWS, _LEAST_DRAWS, _DRAWN_GROUPS = 2000, 200, 2e8  # as many draws as come to so many groups, within limits
_CHUNK = 4e6  # numbers in memory at once
_SCORE_BINS = 512  # of a class' probabilities, in the draws of areas
_JACKKNIFE_GROUPS = 5000  # above, the acceleration is negligible


@lru_cache(maxsize=100_000)
def wilson_interval(count: int, total: int) -> Interval | None:
    """Return the 95 % interval of a fraction (Wilson 1927); None of no observations."""
    from scipy import stats  # takes as long to import as all else that `evaluate` needs

    if total == 0:
        return None
    test = stats.binomtest(count, total, count / total)  # tested against itself, the slow p-value is known to be 1
    interval = test.proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


class Draws:
    """Bootstrap draws of groups, the same for every metric; `groups` numbers that of each image from 0, shape (n,)."""

    def __init__(self, groups: np.ndarray, seed: int = 0) -> None:
        self.groups = groups
        self.count = int(groups.max()) + 1
        self.number = int(np.clip(_DRAWN_GROUPS / self.count, _LEAST_DRAWS, _MOST_DRAWS))
        self.seed = seed

    def sums(self, cells: np.ndarray, width: int, weights: np.ndarray | None = None) -> np.ndarray:
        """Sum over the drawn images in each cell, shape (draws, width); arguments as of `table`."""
        return self.sums_of(self.table(cells, width, weights))[0]

    def sums_of(self, *tables: sparse.csr_matrix) -> list[np.ndarray]:
        """Sum tables of shape (groups, width) over the drawn groups, shape (draws, width) each."""
        rng = np.random.default_rng(self.seed)
        sums = [np.empty((self.number, table.shape[1])) for table in tables]
        step = max(1, int(_CHUNK / max(self.count, *(table.shape[1] for table in tables))))
        for start in range(0, self.number, step):
            rows = range(start, min(start + step, self.number))
            drawn = np.stack([np.bincount(rng.integers(0, self.count, self.count), minlength=self.count) for _ in rows])
            for table, each in zip(tables, sums, strict=True):
                each[rows.start : rows.stop] = (table.T @ drawn.T.astype(np.float64)).T
        return sums

    def table(self, cells: np.ndarray, width: int, weights: np.ndarray | None = None) -> sparse.csr_matrix:
        """Sum over the images of each group and cell, shape (groups, width).

        `cells` has the cell, below `width`, that each image is counted in, shape (n,), or several, (n, k); `weights`
        what it counts there, likewise, 1 without.
        """
        groups = np.repeat(self.groups, cells.shape[1]) if cells.ndim == 2 else self.groups
        values = np.ones(cells.size) if weights is None else weights.ravel()
        return sparse.csr_matrix((values, (groups, cells.ravel())), shape=(self.count, width))

    def units(self, chosen: np.ndarray) -> int:
        """Count the groups that have images among the chosen, bool of shape (n,)."""
        return int(np.count_nonzero(np.bincount(self.groups[chosen], minlength=self.count)))

    def interval(
        self,
        value: float,
        drawn: np.ndarray,
        left_out: np.ndarray | None = None,
        units: int | None = None,
        signed: bool = False,
    ) -> Interval:
        """Compute the interval of a metric from its values of all images and of each draw; NaN where it is undefined.

        `left_out` has the values without each group in turn, for the acceleration; `units` is the number of groups that
        the metric is over, by default all of them; a `signed` one may lie below 0.
        """
        drawn = np.sort(drawn[np.isfinite(drawn)])
        if not np.isfinite(value) or len(drawn) == 0 or self.count < 2:
            return UNDEFINED
        if drawn[0] == drawn[-1]:
            low, high = _constant_interval(value, self.count if units is None else units)
            return (-high, high) if signed and value == 0 else (low, high)
        normal = NormalDist()
        wide = special.stdtrit(self.count - 1, (1 + LEVEL) / 2) * np.sqrt(self.count / (self.count - 1))
        below = (np.searchsorted(drawn, value - 1e-12) + np.searchsorted(drawn, value + 1e-12)) / 2
        bias = normal.inv_cdf(float(np.clip(below / len(drawn), 0.5 / len(drawn), 1 - 0.5 / len(drawn))))
        acceleration = 0.0 if left_out is None else _acceleration(left_out)
        moves = (bias - wide, bias + wide)
        levels = [normal.cdf(bias + moved / (1 - acceleration * moved)) for moved in moves]
        low, high = np.quantile(drawn, levels, method="linear")
        return float(low), float(high)


def _constant_interval(value: float, units: int) -> Interval:
    """The interval where every draw is alike: all correct or all incorrect, of which a bootstrap sees no other.

    This end of Wilson's interval is one term, for which importing scipy.stats would double the time of most reports.
    """
    if value not in (0.0, 1.0):
        return UNDEFINED
    z2 = special.ndtri((1 + LEVEL) / 2) ** 2
    reach = z2 / (units + z2)
    return (0.0, reach) if value == 0 else (1 - reach, 1.0)


def _acceleration(left_out: np.ndarray) -> float:
    left_out = left_out[np.isfinite(left_out)]
    away = left_out.mean() - left_out if len(left_out) else left_out
    spread = (away**2).sum()
    return float((away**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0


def confusion_intervals(
    draws: Draws, truth: np.ndarray, predicted: np.ndarray, classes: int, drawn: np.ndarray | None = None
) -> tuple[dict[str, Interval], dict[str, list[Interval]]]:
    """Compute the intervals of every metric of the confusion matrix, and of `CLASS_METRICS` for each class.

    Truth and predictions are class indices, shape (n,); `drawn` has the confusion matrices of the draws, shape (draws,
    classes²), where they are known.
    """
    cells = truth * classes + predicted
    table = draws.table(cells, classes**2)
    matrix = np.asarray(table.sum(axis=0)).reshape(classes, classes)
    groups = table.toarray() if draws.count <= _JACKKNIFE_GROUPS else np.zeros((0, classes**2))
    samples = draws.sums(cells, classes**2) if drawn is None else drawn
    counts = [matrix, samples.reshape(-1, classes, classes), matrix - groups.reshape(-1, classes, classes)]
    bases = [ConfusionCounts(each) for each in counts]  # of all images, of the draws, without each group
    by_metric = {}
    for metric in metrics_of("confusion"):
        value, sample, left_out = map(metric.compute, bases)
        by_metric[metric.name] = draws.interval(float(value), sample, left_out, signed=metric.range[0] < 0)
    by_class: dict[str, list[Interval]] = {name: [] for name in CLASS_METRICS}
    for index in range(classes):
        of_class, as_class = truth == index, predicted == index
        images = {"precision": as_class, "recall": of_class, "specificity": ~of_class, "f1": of_class | as_class}
        for name, intervals in by_class.items():
            value, sample, left_out = (each.defined_per_class[name][..., index] for each in bases)
            intervals.append(draws.interval(float(value), sample, left_out, draws.units(images[name])))
    return by_metric, by_class


def score_intervals(draws: Draws, scores: Scores, values: dict[str, float]) -> tuple[dict[str, Interval], np.ndarray]:
    """Compute the intervals of every metric of probabilities, whose values of all images are given.

    In the draws, the probabilities of a class are counted in up to 512 bins, which moves an area by less than 1e-4. As
    drawing takes most of the time, the draws' confusion matrices come, too, shape (draws, classes²).
    """
    classes = scores.probabilities.shape[1]
    columns, starts, width = [], [], 0
    for index in np.unique(scores.truth):
        bins, count = _score_bins(scores.probabilities[:, index])
        columns.append(width + 2 * bins + (scores.truth != index))
        starts.append((width, count))
        width += 2 * count
    image_values = {metric.name: metric.compute(scores) for metric in metrics_of("images")}
    binned = confidence_bins(scores.confidence)
    ends = width + BINS * np.arange(4)  # of images, confidence and correct in each bin, then the values of images
    columns += [end + binned for end in ends[:3]]
    columns += [np.full(len(binned), ends[3] + number) for number in range(len(image_values))]
    weights = np.ones((len(binned), len(columns)))
    weights[:, len(starts) + 1 :] = np.stack([scores.confidence, scores.correct, *image_values.values()], 1)
    table = draws.table(np.stack(columns, 1), int(ends[3]) + len(image_values), weights)
    confusion = draws.table(scores.truth * classes + scores.predicted, classes**2)
    drawn, drawn_confusion = draws.sums_of(table, confusion)
    steps = [
        drawn[:, start : start + 2 * count].reshape(len(drawn), count, 2).cumsum(axis=1) for start, count in starts
    ]
    counts = ScoreCounts([(each[..., 0], each[..., 1]) for each in steps], *(drawn[:, e : e + BINS] for e in ends[:3]))
    samples = {metric.name: metric.compute(counts) for metric in metrics_of("scores")}
    for number, name in enumerate(image_values):
        samples[name] = drawn[:, ends[3] + number] / counts.images.sum(axis=1)
    return {name: draws.interval(values[name], sample) for name, sample in samples.items()}, drawn_confusion


def _score_bins(scores: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the bin of each score, from high to low, and the number of bins."""
    distinct = np.unique(scores)
    if len(distinct) > _SCORE_BINS:
        distinct = np.unique(np.quantile(scores, np.linspace(0, 1, _SCORE_BINS), method="inverted_cdf"))
    return len(distinct) - 1 - np.minimum(np.searchsorted(distinct, scores), len(distinct) - 1), len(distinct)
