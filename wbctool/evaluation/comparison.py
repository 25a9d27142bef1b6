"""Several runs side by side: repeats and folds joined, ranks, and paired tests against one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from wbctool.errors import InputError
from wbctool.evaluation.predictions import Predictions
from wbctool.statistics import metrics
from wbctool.statistics.comparison import mcnemar
from wbctool.statistics.intervals import Draws, Interval

_MEMBER = re.compile(r"(fold|repeat)-\d+$")  # as `train --folds` and `--repeats` name them


@dataclass
class Candidate:
    """What is compared: one run, or the folds or repeats of one training.

    Attributes:
        name: of the run, or of the folder that holds its members.
        members: predictions of each.
        figures: of each member, by name; each of shape (members,).
        of_others: it joins the candidates that stand before it, and is not ranked among them.
    """

    name: str
    members: list[Predictions]
    figures: dict[str, np.ndarray]
    of_others: bool = False

    def mean(self, figure: str) -> float:
        """Over the members."""
        return float(self.figures[figure].mean())

    def deviation(self, figure: str) -> float:
        """The standard deviation over the members, NaN of one."""
        return float(self.figures[figure].std(ddof=1)) if len(self.members) > 1 else float("nan")


def candidates(runs: Sequence[tuple[str, Predictions]]) -> list[Candidate]:
    """Runs by name, with `fold-1`, `fold-2`… or `repeat-1`… of one folder joined into one candidate.

    Where that leaves but one, its members stand before it.
    """
    found: dict[str, list[Predictions]] = {}
    for name, predictions in runs:
        path = PurePath(name)
        path = path.parent if path.name == "predictions.jsonl" else path
        joined = str(path.parent) if _MEMBER.fullmatch(path.name) and str(path.parent) != "." else name
        found.setdefault(joined, []).append(predictions)
    if len(found) == 1 and len(runs) > 1:
        return [*(_candidate(name, [one]) for name, one in runs), _candidate(*found.popitem(), of_others=True)]
    return [_candidate(name, members) for name, members in found.items()]


def _candidate(name: str, members: list[Predictions], of_others: bool = False) -> Candidate:
    each = [metrics.summary(one.truth, one.predicted, one.probabilities) for one in members]
    return Candidate(name, members, {key: np.array([row[key] for row in each]) for key in each[0]}, of_others)


def against(candidate: Candidate, baseline: Candidate) -> dict[str, Any]:
    """A paired comparison on the images that both were tested on.

    Returns:
        `accuracy` and `macro_f1`: the difference and its 95 % interval by a paired bootstrap over groups;
        `p`: McNemar's, NaN where images were tested several times; `images`: how many there are.

    Raises:
        InputError: they share no image, or differ in the truth.
    """
    first, second, truth, groups, classes = _paired(candidate, baseline)
    count = len(classes)
    draws = Draws(groups)
    cells = (truth * count + first) * count + second
    shape = (-1, count, count, count)
    drawn = draws.sums(cells, count**3).reshape(shape)
    whole = np.bincount(cells, minlength=count**3).reshape(shape)
    found: dict[str, Any] = {"images": len(truth)}
    for figure in ("accuracy", "macro_f1"):
        value, sample = (
            metrics.figures_of(counts.sum(axis=3))[figure] - metrics.figures_of(counts.sum(axis=2))[figure]
            for counts in (whole, drawn)
        )
        interval: Interval = draws.interval(float(value[0]), sample, signed=True)
        found[figure] = (float(value[0]), interval)
    once = len(candidate.members) == len(baseline.members) == 1
    right = (first == truth, second == truth)
    found["p"] = mcnemar(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())) if once else np.nan
    return found


def _paired(one: Candidate, other: Candidate) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Predictions of both, the truth, group numbers and class names, over the members' common images."""
    if len(one.members) != len(other.members):
        raise InputError(
            f"{one.name} has {len(one.members)} folds or repeats, {other.name} {len(other.members)}: "
            "they cannot be paired"
        )
    classes = sorted({name for each in (one, other) for member in each.members for name in member.classes})
    index = {name: number for number, name in enumerate(classes)}
    columns: list[list[np.ndarray]] = [[], [], [], []]
    names: dict[str, int] = {}
    for own, theirs in zip(one.members, other.members, strict=True):
        place = {image: row for row, image in enumerate(theirs.ids)}
        if place.keys() != set(own.ids):
            common = len(place.keys() & set(own.ids))
            raise InputError(
                f"{one.name} and {other.name} were tested on different images ({common:,} in common of "
                f"{len(own.ids):,} and {len(place):,}): they cannot be paired"
            )
        matched = [place[image] for image in own.ids]
        own_class, their_class = (np.array([index[name] for name in each.classes]) for each in (own, theirs))
        truth = own_class[own.truth]
        if not np.array_equal(truth, their_class[theirs.truth[matched]]):
            raise InputError(f"{one.name} and {other.name} give one image different labels: they cannot be paired")
        columns[0].append(own_class[own.predicted])
        columns[1].append(their_class[theirs.predicted[matched]])
        columns[2].append(truth)
        columns[3].append(np.array([names.setdefault(own.group_names[group], len(names)) for group in own.groups]))
    first, second, truth, groups = (np.concatenate(column) for column in columns)
    return first, second, truth, groups, classes
