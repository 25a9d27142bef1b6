"""Several runs side by side: repeats and folds joined, ranks, and paired tests against one of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from wbctool.errors import InputError, UsageProblem
from wbctool.evaluation.predictions import Predictions
from wbctool.evaluation.report import none_if_nan
from wbctool.statistics.comparison import holm, mcnemar, ranks
from wbctool.statistics.counts import ConfusionCounts, values_of
from wbctool.statistics.intervals import Draws
from wbctool.statistics.metrics import METRICS

_MEMBER = re.compile(r"(fold|repeat)-\d+$")  # as `train --folds` and `--repeats` name them
_TESTED = ("accuracy", "macro_f1")  # metrics whose differences get an interval


@dataclass
class Candidate:
    """What is compared: one run, or the folds or repeats of one training.

    Attributes:
        name: of the run, or of the folder that holds its members.
        members: predictions of each run.
        values: of each metric, those of the members, shape (members,).
        joins_others: whether it joins the candidates before it, and is not ranked among them.
    """

    name: str
    members: list[Predictions]
    values: dict[str, np.ndarray]
    joins_others: bool = False

    def mean(self, metric: str) -> float:
        """Return the mean over the members."""
        return float(self.values[metric].mean())

    def deviation(self, metric: str) -> float:
        """Return the standard deviation over the members; NaN of one."""
        return float(self.values[metric].std(ddof=1)) if len(self.members) > 1 else math.nan


def candidates_of(runs: Sequence[tuple[str, Predictions]]) -> list[Candidate]:
    """Join `fold-1`, `fold-2`… or `repeat-1`… of one folder into one candidate each.

    Where that leaves a single candidate, its members stand before it.

    Args:
        runs: names and predictions.
    """
    members_of: dict[str, list[Predictions]] = {}
    for name, predictions in runs:
        path = PurePath(name)
        path = path.parent if path.name == "predictions.jsonl" else path
        joined = str(path.parent) if _MEMBER.fullmatch(path.name) and str(path.parent) != "." else name
        members_of.setdefault(joined, []).append(predictions)
    if len(members_of) == 1 and len(runs) > 1:
        singles = [_candidate(name, [predictions]) for name, predictions in runs]
        return [*singles, _candidate(*members_of.popitem(), joins_others=True)]
    return [_candidate(name, members) for name, members in members_of.items()]


def _candidate(name: str, members: list[Predictions], joins_others: bool = False) -> Candidate:
    values = [values_of(member) for member in members]
    by_metric = {metric: np.array([each[metric] for each in values]) for metric in values[0]}
    return Candidate(name, members, by_metric, joins_others)


def compare(candidates: Sequence[Candidate], baseline: str | None = None) -> list[dict[str, Any]]:
    """Rank candidates, and test each against the baseline, else against the one of highest accuracy.

    Args:
        candidates: two or more.
        baseline: name of one of them.

    Returns:
        What `evaluate --json` prints as `comparison`, in the order of the candidates.

    Raises:
        InputError: a candidate cannot be paired with the baseline.
        UsageProblem: none has the name of the baseline.
    """
    ranking = ranks([math.nan if each.joins_others else each.mean("accuracy") for each in candidates])
    reference = candidates[ranking.index(1)] if baseline is None else _named(candidates, baseline)
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


def _named(candidates: Sequence[Candidate], name: str) -> Candidate:
    for candidate in candidates:
        if candidate.name.rstrip("/") == name.rstrip("/"):
            return candidate
    names = ", ".join(candidate.name for candidate in candidates)
    raise UsageProblem(f"--baseline {name}: is none of the runs: {names}")


def _test(candidate: Candidate, reference: Candidate, required: bool) -> dict[str, Any] | None:
    """Compare two candidates on the images that both were tested on; None if there are none and none are required.

    Returns:
        Differences with intervals by a paired bootstrap over groups, and McNemar's `p`, NaN where images were tested
        several times.
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
    """Pair the predictions of two candidates, member by member.

    Returns:
        Class indices that the first and the second predict, the truth, group numbers, and the number of classes.

    Raises:
        InputError: they have different numbers of members, different images, or different labels.
    """
    names = f"{one.name} and {other.name}"
    if len(one.members) != len(other.members):
        raise InputError(
            f"{one.name} has {len(one.members)} folds or repeats, {other.name} {len(other.members)}: "
            "they cannot be paired"
        )
    classes = sorted({name for each in (one, other) for member in each.members for name in member.classes})
    index_of = {name: index for index, name in enumerate(classes)}
    columns: list[list[np.ndarray]] = [[], [], [], []]
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
        columns[0].append(of_first[first.predicted])
        columns[1].append(of_second[second.predicted[rows]])
        columns[2].append(truth)
        numbers = [group_numbers.setdefault(first.group_names[group], len(group_numbers)) for group in first.groups]
        columns[3].append(np.array(numbers))
    predicted, predicted_too, truth, groups = (np.concatenate(column) for column in columns)
    return predicted, predicted_too, truth, groups, len(classes)
