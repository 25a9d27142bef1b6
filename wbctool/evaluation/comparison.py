"""Several runs side by side: repeats and folds joined, ranks, and paired tests against one of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np

from wbctool.errors import InputError, UsageProblem
from wbctool.evaluation.document import Block, Items, Paragraph, Table
from wbctool.evaluation.predictions import Predictions
from wbctool.evaluation.report import none_if_nan
from wbctool.statistics.comparison import holm, mcnemar, ranks
from wbctool.statistics.counts import ConfusionCounts, values_of
from wbctool.statistics.intervals import Draws
from wbctool.statistics.metrics import METRICS, Metric

_MEMBER = re.compile(r"(fold|repeat)-\d+$")  # as `train --folds` and `--repeats` name them
_TESTED = ("accuracy", "macro_f1")  # metrics whose differences get an interval


@dataclass
class Candidate:
    """What is compared: one run, or the folds or repeats of one training, under the name of their folder.

    One that joins the others before it is not ranked among them.
    """

    name: str
    members: list[Predictions]
    joins_others: bool = False

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """The values of the members by metric, shape (members,)."""
        values = [values_of(member) for member in self.members]
        return {metric: np.array([each[metric] for each in values]) for metric in values[0]}

    def mean(self, metric: str) -> float:
        """Return the mean over the members."""
        return float(self.values[metric].mean())

    def deviation(self, metric: str) -> float:
        """Return the standard deviation over the members; NaN of one."""
        return float(self.values[metric].std(ddof=1)) if len(self.members) > 1 else math.nan


def candidates_of(runs: Sequence[tuple[str, Predictions]]) -> list[Candidate]:
    """Join `fold-1`, `fold-2`… or `repeat-1`… of one folder into one candidate each.

    Where that leaves a single candidate, its members stand before it.
    """
    members_of: dict[str, list[Predictions]] = {}
    for name, predictions in runs:
        path = PurePath(name)
        path = path.parent if path.name == "predictions.jsonl" else path
        joined = str(path.parent) if _MEMBER.fullmatch(path.name) and str(path.parent) != "." else name
        members_of.setdefault(joined, []).append(predictions)
    if len(members_of) == 1 and len(runs) > 1:
        singles = [Candidate(name, [predictions]) for name, predictions in runs]
        return [*singles, Candidate(*members_of.popitem(), joins_others=True)]
    return [Candidate(name, members) for name, members in members_of.items()]


def compare(candidates: Sequence[Candidate], baseline: str | None = None) -> list[dict[str, Any]]:
    """Rank candidates, and test each against the baseline that is named, else against the one of highest accuracy.

    Raises:
        InputError: a candidate cannot be paired with the baseline.
        UsageProblem: none has the name of the baseline.
    """
    ranking = ranks([math.nan if each.joins_others else each.mean("accuracy") for each in candidates])
    named = [each for each in candidates if baseline and each.name.rstrip("/") == baseline.rstrip("/")]
    if baseline is not None and not named:
        names = ", ".join(candidate.name for candidate in candidates)
        raise UsageProblem(f"--baseline {baseline}: is none of the runs: {names}")
    reference = named[0] if named else candidates[ranking.index(1)]
    tests = [
        None if each is reference or each.joins_others else _test(each, reference, required=baseline is not None)
        for each in candidates
    ]
    corrected = holm([math.nan if test is None else test["p"] for test in tests])
    rows = []
    for candidate, rank, test, p in zip(candidates, ranking, tests, corrected, strict=True):
        row: dict[str, Any] = {"run": candidate.name, "runs": len(candidate.members)}
        row["rank"] = None if candidate.joins_others else rank
        row["n"] = sum(len(member.truth) for member in candidate.members)
        row |= {metric: none_if_nan(candidate.mean(metric)) for metric in candidate.values}
        row["deviations"] = {metric: none_if_nan(candidate.deviation(metric)) for metric in candidate.values}
        if test:
            row["against"] = {**test, "p": none_if_nan(test["p"]), "p_corrected": none_if_nan(p)}
        rows.append(row)
    return rows


def _test(candidate: Candidate, reference: Candidate, required: bool) -> dict[str, Any] | None:
    """Compare two candidates that were tested on the same images; None if they were not, and need not.

    Differences have intervals by a paired bootstrap over groups; McNemar's `p` is NaN where images were tested several
    times.
    """
    try:
        first, second, truth, groups, count = _paired(candidate, reference)
    except InputError:
        if required:
            raise
        return None
    draws = Draws(groups)
    cells = (truth * count + first) * count + second
    whole = np.bincount(cells, minlength=count**3).reshape(1, count, count, count)
    drawn = draws.sums(cells, count**3).reshape(-1, count, count, count)
    test: dict[str, Any] = {"run": reference.name, "images": len(truth)}
    for name in _TESTED:
        (value,), sample = (_difference(name, counts) for counts in (whole, drawn))
        interval = draws.interval(float(value), sample, signed=True)
        test[name] = {"difference": float(value), "interval": [none_if_nan(end) for end in interval]}
    accuracy = reference.mean("accuracy")
    test["relative"] = candidate.mean("accuracy") / accuracy - 1 if accuracy else None
    once = len(candidate.members) == len(reference.members) == 1
    better, worse = (first == truth) & (second != truth), (second == truth) & (first != truth)
    test["p"] = mcnemar(int(better.sum()), int(worse.sum())) if once else math.nan
    return test


def _difference(name: str, counts: np.ndarray) -> np.ndarray:
    """Return a metric of the first candidate minus that of the second, of counts (…, truth, first, second)."""
    compute = METRICS.get(name).compute
    return compute(ConfusionCounts(counts.sum(axis=3))) - compute(ConfusionCounts(counts.sum(axis=2)))


def _paired(one: Candidate, other: Candidate) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Pair two candidates member by member: classes that they predict, the truth, group numbers, number of classes."""
    names = f"{one.name} and {other.name}"
    if len(one.members) != len(other.members):
        counts = f"{one.name} has {len(one.members)} folds or repeats, {other.name} {len(other.members)}"
        raise InputError(f"{counts}: they cannot be paired")
    classes = sorted({name for each in (one, other) for member in each.members for name in member.classes})
    index_of = {name: index for index, name in enumerate(classes)}
    parts = []
    group_numbers: dict[str, int] = {}
    for first, second in zip(one.members, other.members, strict=True):
        row_of = {image: row for row, image in enumerate(second.ids)}
        if row_of.keys() != set(first.ids):
            common = len(row_of.keys() & set(first.ids))
            raise InputError(
                f"{names} were tested on different images ({common:,} in common of {len(first.ids):,} and "
                f"{len(row_of):,}): they cannot be paired"
            )
        rows = [row_of[image] for image in first.ids]
        of_first, of_second = (np.array([index_of[name] for name in each.classes]) for each in (first, second))
        truth = of_first[first.truth]
        if not np.array_equal(truth, of_second[second.truth[rows]]):
            raise InputError(f"{names} give one image different labels: they cannot be paired")
        numbers = [group_numbers.setdefault(first.group_names[group], len(group_numbers)) for group in first.groups]
        parts.append((of_first[first.predicted], of_second[second.predicted[rows]], truth, np.array(numbers)))
    predicted, predicted_too, truth, groups = map(np.concatenate, zip(*parts, strict=True))
    return predicted, predicted_too, truth, groups, len(classes)


def comparison_table(rows: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> Table:
    """Return a row for each run, of those of `compare`, with its rank and its test."""
    tested = any("against" in row for row in rows)
    columns = ["run", *(metric.column or metric.title for metric in metrics)]
    columns += ["difference", "p", "rank"] if tested else ["rank"]
    bold = set()
    for column, metric in enumerate(metrics, 1):
        values = [math.nan if None in (row[metric.name], row["rank"]) else row[metric.name] for row in rows]
        ranking = ranks(values, lower_is_better=not metric.higher_is_better)
        bold |= {(row, column) for row, rank in enumerate(ranking) if rank == 1 and not math.isnan(values[row])}
    return Table(columns, [_row(row, metrics, tested) for row in rows], bold, ruled=True)


def exact_table(rows: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> Table:
    """Return every value in full, for a spreadsheet."""
    headers = ["run", "runs", "images", "rank"]
    headers += [header for metric in metrics for header in (metric.name, f"{metric.name}_sd")]
    headers += ["against", "difference", "low", "high", "relative", "p", "p_corrected"]
    cells = []
    for row in rows:
        values = [value for metric in metrics for value in (row[metric.name], row["deviations"][metric.name])]
        exact = [row["run"], str(row["runs"]), str(row["n"]), str(row["rank"] or ""), *map(_exact, values)]
        tested = [""] * 7
        if test := row.get("against"):
            ends = [test["accuracy"]["difference"], *test["accuracy"]["interval"]]
            tested = [test["run"], *map(_exact, [*ends, test["relative"], test["p"], test["p_corrected"]])]
        cells.append([*exact, *tested])
    return Table(headers, cells)


def comparison_blocks(rows: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> list[Block]:
    """Lay out the comparison, and say what its columns are."""
    blocks: list[Block] = [comparison_table(rows, metrics)]
    tests = [(row["run"], row["against"]) for row in rows if "against" in row]
    if tests:
        text = f"difference: points of accuracy against {tests[0][1]['run']} on the same images; p: McNemar's test,"
        blocks.append(Paragraph(f"{text} corrected for their number (Holm).", "soft"))
        lines = []
        for run, test in tests:
            (low, high), difference = test["accuracy"]["interval"], test["accuracy"]["difference"]
            if low is not None:
                points = f"{100 * difference:+.1f}, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
                lines.append(f"{run}: {points}")
        blocks.append(Items(lines))
    if any(row["rank"] and "against" not in row for row in rows) and len(tests) + 1 < len(rows):
        text = "Runs without a difference were tested on other images: ranks compare the sets as much as the runs."
        blocks.append(Paragraph(text, "warning"))
    return blocks


def _row(row: dict[str, Any], metrics: Sequence[Metric], tested: bool) -> list[str]:
    cells = [row["run"]]
    for metric in metrics:
        value, spread = row[metric.name], row["deviations"][metric.name]
        cells.append("–" if value is None else f"{value:.4f}" if spread is None else f"{value:.3f} ± {spread:.3f}")
    if tested:
        test = row.get("against")
        p = test and test["p_corrected"]
        cells.append(f"{100 * test['accuracy']['difference']:+.1f}" if test else "–")
        cells.append("–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}")
    return [*cells, str(row["rank"] or "–")]


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)
