"""Where runs look, class by class, and whether two differ: pure functions of explained records."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from wbctool.evaluation.comparison import holm
from wbctool.evaluation.intervals import Draws
from wbctool.folders import group_of
from wbctool.records import Record

# of each, what it is by chance: the share of the area, where one is named
FIGURES = {
    "energy in nucleus": "nucleus",
    "energy in cell": "cell",
    "peak in nucleus": "nucleus",
    "peak in cell": "cell",
    "deletion": None,
    "insertion": None,
}
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
        self._figures = array("d")
        self._areas = array("d")
        self._labels: list[str | None] = []
        self._right: list[tuple[bool, ...]] = []
        self._groups: list[int] = []
        self._group_numbers: dict[str, int] = {}

    def add(self, record: Record) -> None:
        """Take a record of `explain` into account."""
        told = record["explain"]
        each = [told, *([told["compare"]] if "compare" in told else [])]
        if not self.runs:
            self.runs = [record["run"], *(one["run"] for one in each[1:])]
            self.methods = list(told["methods"])
        for one in each:
            for method in self.methods:
                self._figures.extend(_figures(one["methods"][method]))
        self.blank += sum(None in one["methods"][m].get("energy", {}).values() for one in each for m in self.methods)
        area = told.get("area", {})
        self._areas.extend((area.get("nucleus", np.nan), area.get("cell", np.nan)))
        label = record.get("label")
        self._labels.append(label)
        said = [record["predicted"], *(one["predicted"] for one in each[1:])]
        self._right.append(() if label is None else tuple(name == label for name in said))
        self._groups.append(self._group_numbers.setdefault(group_of(record), len(self._group_numbers)))

    def summary(self) -> dict[str, Any]:
        """Figures of each run and method, by class and of all, and the paired tests where there are two runs."""
        if not self._labels:
            return {"images": 0, "runs": []}
        values = np.array(self._figures).reshape(-1, len(self.runs), len(self.methods), len(FIGURES))
        areas = np.array(self._areas).reshape(-1, 2)
        groups, draws = np.array(self._groups), Draws(np.array(self._groups))
        runs = []
        for r, run in enumerate(self.runs):
            parts = self._parts(r)
            for m, method in enumerate(self.methods):
                classes = {
                    name: _row(values[chosen, r, m], areas[chosen], len(chosen)) for name, chosen in parts.items()
                }
                known = [(index, name) for index, name in enumerate(FIGURES) if name in classes[ALL]]
                classes[ALL]["intervals"] = {name: _interval(draws, values[:, r, m, index]) for index, name in known}
                runs.append({"run": run, "method": method, "classes": classes})
        made: dict[str, Any] = {"images": len(values), "groups": int(groups.max()) + 1, "runs": runs}
        if len(self.runs) > 1:
            made["compared"] = [
                {"method": method, "figures": _paired(values[:, :, m], groups, draws)}
                for m, method in enumerate(self.methods)
            ]
        return made

    def _parts(self, run: int) -> dict[str, np.ndarray]:
        """The images of each class, those a run classified rightly and wrongly, and all."""
        labels: dict[str, list[int]] = defaultdict(list)
        for number, label in enumerate(self._labels):
            if label is not None:
                labels[label].append(number)
        parts = {name: np.array(labels[name]) for name in sorted(labels)}
        for name, side in ((RIGHT, True), (WRONG, False)):
            found = [number for number, right in enumerate(self._right) if right and right[run] is side]
            if found:
                parts[name] = np.array(found)
        return {**parts, ALL: np.arange(len(self._labels))}


def _figures(told: dict[str, Any]) -> list[float]:
    energy, pointing = told.get("energy", {}), told.get("pointing", {})
    found = [energy.get("nucleus"), energy.get("cell"), pointing.get("nucleus"), pointing.get("cell")]
    found += [told.get("deletion"), told.get("insertion")]
    return [np.nan if value is None else float(value) for value in found]


def _row(values: np.ndarray, areas: np.ndarray, images: int) -> dict[str, Any]:
    """The means of some images' figures, and of the areas that chance would give."""
    means = {name: _mean(values[:, index]) for index, name in enumerate(FIGURES)}
    area = {"area of nucleus": _mean(areas[:, 0]), "area of cell": _mean(areas[:, 1])}
    return {"images": images, **{name: value for name, value in {**means, **area}.items() if value is not None}}


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(f"{known.mean():.6g}") if len(known) else None


def _interval(draws: Draws, values: np.ndarray, signed: bool = False) -> list[float] | None:
    known = np.isfinite(values)
    cells = np.tile([0, 1], (len(values), 1))
    sums = draws.sums(cells, 2, np.stack([np.where(known, values, 0), known.astype(np.float64)], 1))
    drawn = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)
    low, high = draws.interval(float(values[known].mean()), drawn, units=draws.units(known), signed=signed)
    return [float(f"{low:.6g}"), float(f"{high:.6g}")] if np.isfinite(low) else None


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
            "difference": float(f"{difference[known].mean():.6g}"),
            "interval": _interval(draws, difference, signed=True),
            "images": int(known.sum()),
            "groups": len(means),
            "p": float(f"{p:.4g}"),
        }
    for own, corrected in zip(found.values(), holm([own["p"] for own in found.values()]), strict=True):
        own["p_holm"] = float(f"{corrected:.4g}")
    return found


def rows_of(run: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table of one run and method: its columns, and a row for each class, the interval of all, and chance.

    A map of chance has of its energy, and of its peaks, the share of the area.
    """
    whole = run["classes"][ALL]
    known = [name for name in FIGURES if name in whole]
    rows = []
    for name, figures in run["classes"].items():
        shown = [f"{figures[figure]:.2f}" if figure in figures else "" for figure in known]
        rows.append([name, f"{figures['images']:,}", *shown])
    ends = [whole["intervals"][name] for name in known]
    for number, name in enumerate(("95 % from", "95 % to")):
        rows.append([name, "", *(f"{each[number]:.2f}" if each else "" for each in ends)])
    chance = [whole.get(f"area of {FIGURES[name]}") for name in known]
    if any(area is not None for area in chance):
        rows.append(["by chance", "", *("" if area is None else f"{area:.2f}" for area in chance)])
    return ["class", "images", *(name.replace("energy in ", "") for name in known)], rows


def compared_rows(figures: dict[str, Any]) -> list[Sequence[str]]:
    """The rows of the paired table: figure, difference, interval, p, p after Holm's correction."""
    rows = []
    for name, own in figures.items():
        ends = own["interval"]
        interval = f"{ends[0]:+.3f} to {ends[1]:+.3f}" if ends else ""
        rows.append((name, f"{own['difference']:+.3f}", interval, f"{own['p']:.2g}", f"{own['p_holm']:.2g}"))
    return rows
