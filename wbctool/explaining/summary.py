"""Where runs look, class by class, and whether two differ: pure functions of explained records."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from wbctool.records import Record, group_of
from wbctool.statistics.comparison import holm
from wbctool.statistics.intervals import Draws

# of each, what it is by chance: the share of the area, where one is named
FIGURES = {
    "energy in nucleus": "nucleus",
    "energy in cell": "cell",
    "peak in nucleus": "nucleus",
    "peak in cell": "cell",
    "deletion": None,
    "insertion": None,
}
SWAPPED = "another's"  # the map of another image, over the mask of this one
ALL, RIGHT, WRONG = "all", "right", "wrong"


class Collected:
    """The figures of explained records, a few numbers of each.

    Attributes:
        runs: names of the run, and of the one it is compared with.
        methods: of the maps.
        blank: how many maps were 0 everywhere.
    """

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.methods: list[str] = []
        self.blank = 0
        self._figures, self._areas = array("d"), array("d")
        self._labels: list[str | None] = []
        self._right: list[tuple[bool, ...]] = []
        self._groups: list[int] = []
        self._group_numbers: dict[str, int] = {}
        self._agreement: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0])

    def add(self, record: Record) -> None:
        """Take a record of `explain` into account."""
        told = record["explain"]
        each = [told, *([told["compare"]] if "compare" in told else [])]
        if not self.runs:
            self.runs = [record["run"], *(one["run"] for one in each[1:])]
            self.methods = list(told["methods"])
        for r, one in enumerate(each):
            for method in self.methods:
                own = one["methods"][method]
                self._figures.extend(_figures(own))
                self.blank += own.get("blank", False)
            for pair, value in one.get("agreement", {}).items():
                total = self._agreement[r, pair]
                total[0] += value or 0.0
                total[1] += value is not None
        area = told.get("area", {})
        self._areas.extend((area.get("nucleus", np.nan), area.get("cell", np.nan)))
        label = record.get("label")
        self._labels.append(label)
        said = [record["predicted"], *(one["predicted"] for one in each[1:])]
        self._right.append(() if label is None else tuple(name == label for name in said))
        self._groups.append(self._group_numbers.setdefault(group_of(record), len(self._group_numbers)))

    def summary(self) -> dict[str, Any]:
        """Of each run and method the figures of each class, of right and wrong predictions, and of all; of two runs
        the paired tests."""
        if not self._labels:
            return {"images": 0, "runs": []}
        values = np.array(self._figures).reshape(-1, len(self.runs), len(self.methods), WIDTH)
        areas = np.array(self._areas).reshape(-1, 2)
        groups = np.array(self._groups)
        draws = Draws(groups)
        runs = []
        for r, run in enumerate(self.runs):
            alike = {pair: _digits(t / n) for (at, pair), (t, n) in self._agreement.items() if at == r and n}
            for m, method in enumerate(self.methods):
                own = values[:, r, m]
                row: dict[str, Any] = {"run": run, "method": method}
                row["classes"] = {name: _row(own[which], areas[which]) for name, which in self._classes().items()}
                for side, is_right in ((RIGHT, True), (WRONG, False)):
                    which = [n for n, right in enumerate(self._right) if right and right[r] is is_right]
                    if which:
                        row[side] = _row(own[which], areas[which])
                row[ALL] = _row(own, areas)
                row["intervals"] = {
                    name: _interval(draws, own[:, index]) for index, name in enumerate(FIGURES) if name in row[ALL]
                }
                runs.append({**row, "agreement": {pair: v for pair, v in alike.items() if method in pair.split()}})
        made: dict[str, Any] = {"images": len(values), "groups": int(groups.max()) + 1, "runs": runs}
        if len(self.runs) > 1:
            made["compared"] = [
                {"method": method, "figures": _paired(values[:, :, m], groups, draws)}
                for m, method in enumerate(self.methods)
            ]
        return made

    def _classes(self) -> dict[str, list[int]]:
        """The images of each class."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, label in enumerate(self._labels):
            if label is not None:
                found[label].append(number)
        return dict(sorted(found.items()))


WIDTH = len(FIGURES) + 2  # the last two are of the energy of another image's map


def _figures(told: dict[str, Any]) -> list[float]:
    energy, pointing, swapped = (told.get(name, {}) for name in ("energy", "pointing", "swapped"))
    found = [energy.get("nucleus"), energy.get("cell"), pointing.get("nucleus"), pointing.get("cell")]
    found += [told.get("deletion"), told.get("insertion"), swapped.get("nucleus"), swapped.get("cell")]
    return [np.nan if value is None else float(value) for value in found]


def _row(values: np.ndarray, areas: np.ndarray) -> dict[str, Any]:
    """The means of some images' figures, and what they would be by chance: the areas, and those of another's map."""
    means = {name: _mean(values[:, index]) for index, name in enumerate(FIGURES)}
    for index, region in enumerate(("nucleus", "cell")):
        means[f"area of {region}"] = _mean(areas[:, index])
        means[f"{SWAPPED} energy in {region}"] = _mean(values[:, len(FIGURES) + index])
    return {"images": len(values), **{name: value for name, value in means.items() if value is not None}}


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return _digits(known.mean()) if len(known) else None


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


def _interval(draws: Draws, values: np.ndarray, signed: bool = False) -> list[float] | None:
    known = np.isfinite(values)
    cells = np.tile([0, 1], (len(values), 1))
    sums = draws.sums(cells, 2, np.stack([np.where(known, values, 0), known.astype(np.float64)], 1))
    drawn = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)
    low, high = draws.interval(float(values[known].mean()), drawn, units=draws.units(known), signed=signed)
    return [_digits(low), _digits(high)] if np.isfinite(low) else None


def _paired(values: np.ndarray, groups: np.ndarray, draws: Draws) -> dict[str, Any]:
    """Of each figure, the second run's mean less the first's, its interval, and Wilcoxon's signed-rank test.

    The test is of groups' means, as images of one group do not count as several.
    """
    found: dict[str, Any] = {}
    for index, name in enumerate(FIGURES):
        difference = values[:, 1, index] - values[:, 0, index]
        known = np.isfinite(difference)
        if not known.any():
            continue
        sums = np.bincount(groups[known], difference[known])
        counts = np.bincount(groups[known])
        means = sums[counts > 0] / counts[counts > 0]
        p = float(stats.wilcoxon(means).pvalue) if np.any(means != 0) else 1.0
        found[name] = {
            "difference": _digits(difference[known].mean()),
            "interval": _interval(draws, difference, signed=True),
            "images": int(known.sum()),
            "groups": len(means),
            "p": float(f"{p:.4g}"),
        }
    for own, corrected in zip(found.values(), holm([own["p"] for own in found.values()]), strict=True):
        own["p_holm"] = float(f"{corrected:.4g}")
    return found


def rows_of(run: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table of one run and method: its columns; a row for each class and side, for all, their interval, and chance.

    A map of chance has of its energy, and of its peaks, the share of the area; another image's map knows in
    addition that cells are in the middle.
    """
    whole = run[ALL]
    known = [name for name in FIGURES if name in whole]
    parts = {**run["classes"], **{side: run[side] for side in (RIGHT, WRONG, ALL) if side in run}}
    rows = [
        [name, f"{own['images']:,}", *(f"{own[figure]:.2f}" if figure in own else "" for figure in known)]
        for name, own in parts.items()
    ]
    if not known:
        return ["class", "images"], rows
    ends = [run["intervals"][name] for name in known]
    for number, name in enumerate(("  95 % from", "  to")):
        rows.append([name, "", *(f"{each[number]:.2f}" if each else "" for each in ends)])
    for name, key in (("swapped", f"{SWAPPED} {{}}"), ("area", "area of {}")):
        keys = [key.format(figure if SWAPPED in key else FIGURES[figure]) for figure in known]
        if any(key in whole for key in keys):
            rows.append([name, "", *(f"{whole[key]:.2f}" if key in whole else "" for key in keys)])
    return ["class", "images", *known], rows


def compared_rows(figures: dict[str, Any]) -> list[Sequence[str]]:
    """The rows of the paired table: figure, difference, interval, p, p after Holm's correction."""
    rows: list[Sequence[str]] = []
    for name, own in figures.items():
        ends = own["interval"]
        interval = f"{ends[0]:+.3f} to {ends[1]:+.3f}" if ends else ""
        rows.append((name, f"{own['difference']:+.3f}", interval, f"{own['p']:.2g}", f"{own['p_holm']:.2g}"))
    return rows
