"""95 % intervals of figures by a bootstrap over groups, so that copies of one image do not count as several.

Groups (patients, slides, originals; without any, images) are drawn with replacement (Davison and Hinkley
1997, section 3.8). Intervals are BCa (Efron 1987), their levels widened for few groups by Student's t and
by √(G/(G-1)) (Hesterberg 2015, section 4.5).
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from scipy import sparse, special

from wbctool.statistics import metrics

Interval = tuple[float, float]
LEVEL = 0.95
MOST, LEAST, DRAWN = 2000, 200, 2e8  # draws: as many as come to so many drawn groups, within limits
_CHUNK = 4e6  # numbers held at once
_BINS = 512  # of scores, in the draws of areas
_JACKKNIFE = 5000  # groups above which the acceleration is nothing


class Draws:
    """The same draws of groups for every figure.

    Args:
        groups: group number of each image, 0 to G-1, shape (n,).
        seed: of the draws.
    """

    def __init__(self, groups: np.ndarray, seed: int = 0) -> None:
        self.groups = groups
        self.count = int(groups.max()) + 1
        self.number = int(np.clip(DRAWN / self.count, LEAST, MOST))
        self.seed = seed

    def sums(self, cells: np.ndarray, width: int, weights: np.ndarray | None = None) -> np.ndarray:
        """Sums over drawn images in cells, one row a draw, shape (draws, width).

        Args:
            cells: where each image is counted, (n,) or (n, k) for several cells each.
            width: how many cells there are.
            weights: what it counts, likewise; 1 without.
        """
        table = self.table(cells, width, weights)
        rng = np.random.default_rng(self.seed)
        out = np.empty((self.number, width))
        step = max(1, int(_CHUNK / max(self.count, width)))
        for start in range(0, self.number, step):
            rows = range(start, min(start + step, self.number))
            drawn = np.stack([np.bincount(rng.integers(0, self.count, self.count), minlength=self.count) for _ in rows])
            out[rows.start : rows.stop] = (table.T @ drawn.T.astype(np.float64)).T
        return out

    def table(self, cells: np.ndarray, width: int, weights: np.ndarray | None = None) -> sparse.csr_matrix:
        """Sums of each group, shape (groups, width)."""
        groups = np.repeat(self.groups, cells.shape[1]) if cells.ndim == 2 else self.groups
        values = np.ones(cells.size) if weights is None else weights.ravel()
        return sparse.csr_matrix((values, (groups, cells.ravel())), shape=(self.count, width))

    def units(self, chosen: np.ndarray) -> int:
        """How many groups have images among the chosen, (n,)."""
        return int(np.count_nonzero(np.bincount(self.groups[chosen], minlength=self.count)))

    def interval(
        self,
        value: float,
        drawn: np.ndarray,
        left_out: np.ndarray | None = None,
        units: int | None = None,
        signed: bool = False,
    ) -> Interval:
        """The interval of a figure.

        Args:
            value: of the whole set.
            drawn: of each draw, NaN where it is undefined there.
            left_out: without each group in turn, for the acceleration.
            units: groups that the figure is over; all of them without.
            signed: it may lie below 0, too.

        Returns:
            NaN twice where it is undefined.
        """
        drawn = np.sort(drawn[np.isfinite(drawn)])
        if not np.isfinite(value) or len(drawn) == 0 or self.count < 2:
            return float("nan"), float("nan")
        if drawn[0] == drawn[-1]:
            low, high = _at_the_edge(value, self.count if units is None else units)
            return (-high, high) if signed and value == 0 else (low, high)
        normal = NormalDist()
        wide = special.stdtrit(self.count - 1, (1 + LEVEL) / 2) * np.sqrt(self.count / (self.count - 1))
        under = (np.searchsorted(drawn, value - 1e-12) + np.searchsorted(drawn, value + 1e-12)) / 2
        bias = normal.inv_cdf(float(np.clip(under / len(drawn), 0.5 / len(drawn), 1 - 0.5 / len(drawn))))
        acceleration = 0.0 if left_out is None else _acceleration(left_out)
        ends = []
        for sign in (-1, 1):
            moved = bias + sign * wide
            ends.append(normal.cdf(bias + moved / (1 - acceleration * moved)))
        low, high = np.quantile(drawn, ends, method="linear")
        return float(low), float(high)


def _at_the_edge(value: float, units: int) -> Interval:
    # all right or all wrong: a bootstrap knows no other; Wilson's (1927) interval of a share does
    open_share = special.ndtri((1 + LEVEL) / 2) ** 2
    open_share /= units + open_share
    if value not in (0.0, 1.0):
        return float("nan"), float("nan")
    return (0.0, open_share) if value == 0 else (1 - open_share, 1.0)


def _acceleration(left_out: np.ndarray) -> float:
    left_out = left_out[np.isfinite(left_out)]
    away = left_out.mean() - left_out if len(left_out) else left_out
    spread = (away**2).sum()
    return float((away**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0


def of_confusion(
    draws: Draws, truth: np.ndarray, predicted: np.ndarray, classes: int
) -> tuple[dict[str, Interval], dict[str, list[Interval]]]:
    """Intervals of `metrics.figures_of`, and of each class' figures (`metrics.per_class`).

    Args:
        draws: of the groups of the images.
        truth: class indices, (n,).
        predicted: likewise.
        classes: how many there are.

    Returns:
        (low, high) by figure, and by figure of each class; NaN where it is undefined or there is one group.
    """
    cells = truth * classes + predicted
    table = draws.table(cells, classes**2)
    whole = np.asarray(table.sum(axis=0)).reshape(classes, classes)
    drawn = draws.sums(cells, classes**2).reshape(-1, classes, classes)
    # of many groups the acceleration is nothing
    parts = table.toarray() if draws.count <= _JACKKNIFE else np.zeros((0, classes**2))
    without = whole - parts.reshape(-1, classes, classes)
    value, sample, less = (metrics.figures_of(each) for each in (whole, drawn, without))
    main = {
        name: draws.interval(float(value[name]), sample[name], less[name], signed=name in ("mcc", "kappa"))
        for name in value
    }
    value, sample, less = (metrics.per_class(each) for each in (whole, drawn, without))
    sample = {name: np.where(_is_defined(name, drawn), each, np.nan) for name, each in sample.items()}
    less = {name: np.where(_is_defined(name, without), each, np.nan) for name, each in less.items()}
    within = [(truth == k, predicted == k) for k in range(classes)]
    units = {
        "precision": [draws.units(chosen) for _, chosen in within],
        "recall": [draws.units(own) for own, _ in within],
        "specificity": [draws.units(~own) for own, _ in within],
        "f1": [draws.units(own | chosen) for own, chosen in within],
    }
    every = {
        name: [
            draws.interval(float(value[name][k]), sample[name][:, k], less[name][:, k], units[name][k])
            if units[name][k]
            else (float("nan"), float("nan"))
            for k in range(classes)
        ]
        for name in units
    }
    return main, every


def _is_defined(name: str, confusion: np.ndarray) -> np.ndarray:
    """Whether each class has what a figure is a share of, in each draw, (…, classes)."""
    support, chosen = confusion.sum(axis=-1), confusion.sum(axis=-2)
    whole = {"precision": chosen, "recall": support, "specificity": support.sum(axis=-1, keepdims=True) - support}
    return whole.get(name, support + chosen) > 0


def of_scores(
    draws: Draws, truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, values: dict[str, float]
) -> dict[str, Interval]:
    """Intervals of `metrics.score_figures`, whose values are given.

    In the draws, scores are counted in up to 512 bins a class, which moves an area by less than 1e-4.

    Args:
        draws: of the groups of the images.
        truth: class indices, (n,).
        predicted: likewise.
        probabilities: (n, classes).
        values: what `score_figures` gave.

    Returns:
        (low, high) by figure.
    """
    columns, starts, width = [], [], 0
    occurring = np.unique(truth)
    for index in occurring:
        bins, count = _score_bins(probabilities[:, index])
        columns.append(width + 2 * bins + (truth != index))
        starts.append((width, count))
        width += 2 * count
    own = probabilities[np.arange(len(truth)), predicted]
    place = metrics.confidence_bins(own)
    ends = width + metrics.BINS * np.arange(4)
    columns += [ends[0] + place, ends[1] + place, ends[2] + place, np.full(len(truth), ends[3])]
    weights = np.ones((len(truth), len(columns)))
    weights[:, -3] = own
    weights[:, -2] = truth == predicted
    weights[:, -1] = metrics.log_losses(truth, probabilities)
    drawn = draws.sums(np.stack(columns, 1), int(ends[3]) + 1, weights)
    areas = []
    for start, count in starts:
        counted = drawn[:, start : start + 2 * count].reshape(len(drawn), count, 2).cumsum(axis=1)
        areas.append(metrics.areas(counted[..., 0], counted[..., 1]))
    under, average = (_mean_of_known(np.array(each)) for each in zip(*areas, strict=True))
    counts, confidence, right = (drawn[:, end : end + metrics.BINS] for end in ends[:3])
    samples = {
        "macro_auc": under,
        "macro_average_precision": average,
        "log_loss": drawn[:, -1] / counts.sum(axis=1),
        "calibration_error": metrics.calibration_error(counts, confidence, right),
    }
    return {name: draws.interval(values[name], sample) for name, sample in samples.items()}


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(values.shape[1:], np.nan), where=known.any(axis=0))


def _score_bins(scores: np.ndarray) -> tuple[np.ndarray, int]:
    """The bin of each score, from high to low, and how many bins there are."""
    distinct = np.unique(scores)
    if len(distinct) > _BINS:
        distinct = np.unique(np.quantile(scores, np.linspace(0, 1, _BINS), method="inverted_cdf"))
    return len(distinct) - 1 - np.minimum(np.searchsorted(distinct, scores), len(distinct) - 1), len(distinct)
