"""Scores of explained records, by class, and paired tests of two runs."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from wbctool.explaining.scores import rounded
from wbctool.records import Record, group_of
from wbctool.statistics.comparison import holm
from wbctool.statistics.intervals import Draws

# each score with the region whose area it equals by chance, where there is one
SCORES = {
    "energy in nucleus": "nucleus",
    "energy in cell": "cell",
    "peak in nucleus": "nucleus",
    "peak in cell": "cell",
    "deletion": None,
    "insertion": None,
}
WIDTH = len(SCORES) + 2  # numbers of a map; the last two are the energy of another image's map
SWAPPED = "another's"  # the map of another image, with the mask of this one
ALL, CORRECT, INCORRECT = "all", "right", "wrong"  # keys of scores.json


class ScoreCollector:
    """The scores of explained records, a few numbers for each."""

    def __init__(self) -> None:
        self.runs: list[str] = []  # names of the run, and of the one it is compared with
        self.methods: list[str] = []  # of the maps
        self.blank = 0  # number of maps that were 0 everywhere
        self._scores, self._areas = array("d"), array("d")
        self._labels: list[str | None] = []
        self._correct: list[tuple[bool, ...]] = []
        self._groups: list[int] = []
        self._group_numbers: dict[str, int] = {}
        self._agreement: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0])  # sum and count

    def add(self, record: Record) -> None:
        """Take a record of `explain` into account."""
        first = record["explain"]
        by_run = [first, first["compare"]] if "compare" in first else [first]
        if not self.runs:
            self.runs = [record["run"], *(other["run"] for other in by_run[1:])]
            self.methods = list(first["methods"])
        for number, explained in enumerate(by_run):
            for method in self.methods:
                self._scores.extend(_scores_of(explained["methods"][method]))
                self.blank += explained["methods"][method].get("blank", False)
            for pair, value in explained.get("agreement", {}).items():
                total = self._agreement[number, pair]
                total[0] += value or 0.0
                total[1] += value is not None
        area = first.get("area", {})
        self._areas.extend((area.get("nucleus", np.nan), area.get("cell", np.nan)))
        label = record.get("label")
        self._labels.append(label)
        predicted = [record["predicted"], *(other["predicted"] for other in by_run[1:])]
        self._correct.append(() if label is None else tuple(name == label for name in predicted))
        self._groups.append(self._group_numbers.setdefault(group_of(record), len(self._group_numbers)))

    def summary(self) -> dict[str, Any]:
        """Return the object of `scores.json`.

        For each run and method it has the mean scores of each class, of correct and incorrect predictions, and of all
        images; for two runs also paired tests.
        """
        if not self._labels:
            return {"images": 0, "runs": []}
        values = np.array(self._scores).reshape(-1, len(self.runs), len(self.methods), WIDTH)
        groups = np.array(self._groups)
        draws = Draws(groups)
        summary: dict[str, Any] = {"images": len(values), "groups": int(groups.max()) + 1}
        summary["runs"] = [
            self._row(run, method, values[:, run, method], draws)
            for run in range(len(self.runs))
            for method in range(len(self.methods))
        ]
        if len(self.runs) > 1:
            summary["compared"] = [
                {"method": name, "figures": _paired(values[:, :, number], groups, draws)}
                for number, name in enumerate(self.methods)
            ]
        return summary

    def _row(self, run: int, method: int, values: np.ndarray, draws: Draws) -> dict[str, Any]:
        """Return the scores of one run and method, from the values of all images, (n, WIDTH)."""
        areas = np.array(self._areas).reshape(-1, 2)
        name = self.methods[method]
        row: dict[str, Any] = {"run": self.runs[run], "method": name}
        numbers: dict[str, list[int]] = defaultdict(list)
        for number, label in enumerate(self._labels):
            if label is not None:
                numbers[label].append(number)
        row["classes"] = {label: _means(values[which], areas[which]) for label, which in sorted(numbers.items())}
        for key, is_correct in ((CORRECT, True), (INCORRECT, False)):
            which = [number for number, correct in enumerate(self._correct) if correct and correct[run] is is_correct]
            if which:
                row[key] = _means(values[which], areas[which])
        row[ALL] = _means(values, areas)
        row["intervals"] = {
            score: _interval(draws, values[:, index]) for index, score in enumerate(SCORES) if score in row[ALL]
        }
        row["agreement"] = {
            pair: rounded(total / count)
            for (number, pair), (total, count) in self._agreement.items()
            if number == run and count and name in pair.split()
        }
        return row


def _scores_of(scores: dict[str, Any]) -> list[float]:
    """Return the scores of one map in the order of `SCORES`, and the energy of another image's map; NaN for none."""
    energy, pointing, swapped = (scores.get(name, {}) for name in ("energy", "pointing", "swapped"))
    values = [energy.get("nucleus"), energy.get("cell"), pointing.get("nucleus"), pointing.get("cell")]
    values += [scores.get("deletion"), scores.get("insertion"), swapped.get("nucleus"), swapped.get("cell")]
    return [np.nan if value is None else float(value) for value in values]


def _means(values: np.ndarray, areas: np.ndarray) -> dict[str, Any]:
    """Return the mean scores of some images and what they would be by chance: areas, and those of another's map."""
    means = {name: _mean(values[:, index]) for index, name in enumerate(SCORES)}
    for index, region in enumerate(("nucleus", "cell")):
        means[f"area of {region}"] = _mean(areas[:, index])
        means[f"{SWAPPED} energy in {region}"] = _mean(values[:, len(SCORES) + index])
    return {"images": len(values), **{name: value for name, value in means.items() if value is not None}}


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return rounded(known.mean()) if len(known) else None


def _interval(draws: Draws, values: np.ndarray, signed: bool = False) -> list[float | None] | None:
    """Return the 95 % interval of the mean of values, (n,), NaN for missing ones; None where it is undefined."""
    known = np.isfinite(values)
    cells = np.tile([0, 1], (len(values), 1))
    sums = draws.sums(cells, 2, np.stack([np.where(known, values, 0), known.astype(np.float64)], 1))
    means = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)
    low, high = draws.interval(float(values[known].mean()), means, units=draws.units(known), signed=signed)
    return [rounded(low), rounded(high)] if np.isfinite(low) else None


def _paired(values: np.ndarray, groups: np.ndarray, draws: Draws) -> dict[str, Any]:
    """Compare two runs: the difference (second less first) of each mean score, its interval, and a paired test.

    The test is Wilcoxon's signed-rank test of the groups' means, as several images of a group are no independent
    evidence; p values are also given after Holm's correction.
    """
    tests: dict[str, Any] = {}
    for index, name in enumerate(SCORES):
        difference = values[:, 1, index] - values[:, 0, index]
        known = np.isfinite(difference)
        if not known.any():
            continue
        counts = np.bincount(groups[known])
        means = np.bincount(groups[known], difference[known])[counts > 0] / counts[counts > 0]
        p = float(stats.wilcoxon(means).pvalue) if np.any(means != 0) else 1.0
        tests[name] = {
            "difference": rounded(difference[known].mean()),
            "interval": _interval(draws, difference, signed=True),
            "images": int(known.sum()),
            "groups": len(means),
            "p": float(f"{p:.4g}"),
        }
    for test, corrected in zip(tests.values(), holm([test["p"] for test in tests.values()]), strict=True):
        test["p_holm"] = float(f"{corrected:.4g}")
    return tests


def score_rows(run: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the table of one run and method.

    There is a row for each class, for correct and incorrect predictions, for all and their 95 % interval, and two for
    chance: `swapped`, the energy of another image's map, which knows that cells are in the middle, and `area`, which
    energy and peaks of a random map equal.
    """
    total = run[ALL]
    columns = [name for name in SCORES if name in total]
    parts = {**run["classes"], **{key: run[key] for key in (CORRECT, INCORRECT, ALL) if key in run}}
    rows = [
        [name, f"{means['images']:,}", *(f"{means[score]:.2f}" if score in means else "" for score in columns)]
        for name, means in parts.items()
    ]
    if not columns:
        return ["class", "images"], rows
    intervals = [run["intervals"][name] for name in columns]
    for number, name in enumerate(("  95 % from", "  to")):
        rows.append([name, "", *(f"{interval[number]:.2f}" if interval else "" for interval in intervals)])
    swapped = [f"{SWAPPED} {score}" for score in columns]
    areas = [f"area of {SCORES[score]}" for score in columns]
    for name, keys in (("swapped", swapped), ("area", areas)):
        if any(key in total for key in keys):
            rows.append([name, "", *(f"{total[key]:.2f}" if key in total else "" for key in keys)])
    return ["class", "images", *columns], rows


def comparison_rows(tests: dict[str, Any]) -> list[Sequence[str]]:
    """Return the rows of the paired table: score, difference, interval, p, p after Holm's correction."""
    rows: list[Sequence[str]] = []
    for name, test in tests.items():
        limits = test["interval"]
        interval = f"{limits[0]:+.3f} to {limits[1]:+.3f}" if limits else ""
        rows.append((name, f"{test['difference']:+.3f}", interval, f"{test['p']:.2g}", f"{test['p_holm']:.2g}"))
    return rows
