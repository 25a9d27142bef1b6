"""Splits and folds of records: whole groups, near the same fractions of every class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from wbctool.errors import UsageProblem
from wbctool.records import ERROR, Record, group_of


def parse_ratio(text: str) -> dict[str, float]:
    """Parse `70/15/15` as fractions of train, val and test, or `80/20` as those of train and test."""
    try:
        numbers = [float(number) for number in text.split("/")]
    except ValueError:
        numbers = []
    names = {2: ("train", "test"), 3: ("train", "val", "test")}.get(len(numbers))
    if not names or min(numbers) < 0 or not 0 < sum(numbers) < float("inf") or numbers[0] <= 0:
        raise UsageProblem(f"--ratio {text}: write train/val/test or train/test, such as 70/15/15 or 80/20")
    return {name: number / sum(numbers) for name, number in zip(names, numbers, strict=True)}


def assign_groups(
    labels: Sequence[str | None], groups: Sequence[str], fractions: Sequence[float], seed: int
) -> np.ndarray:
    """Assign items to subsets, keeping groups whole and each class near its fraction in every subset.

    Groups are assigned in random order, larger ones first. Each goes to the subset that lacks most of
    the group's classes, and on a tie between subsets of one size to the one that lacks most in total.
    If every group is one item, each class is within one item of its fraction. The result, the index of
    each item's subset, does not depend on the order of the items. A label None is a class of its own;
    the fractions sum to 1, and a subset with fraction 0 stays empty.
    """
    classes = sorted({label or "" for label in labels})
    names = sorted(set(groups))
    class_index = {name: index for index, name in enumerate(classes)}
    group_index = {name: index for index, name in enumerate(names)}
    item_group = np.array([group_index[group] for group in groups])
    counts = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(counts, (item_group, np.array([class_index[label or ""] for label in labels], np.int64)), 1)
    totals = counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    weights = np.asarray(fractions, np.float64)
    lacking = np.outer(weights, totals)
    subset = np.empty(len(names), np.int64)
    for group in order:
        need = (lacking * (counts[group] / totals)).sum(axis=1)
        need[weights <= 0] = -np.inf
        need = np.round(need, 9)
        best = int(np.argmax(need))
        tied = np.flatnonzero((need == need[best]) & (weights == weights[best]))
        subset[group] = best if len(tied) == 1 else tied[np.argmax(lacking[tied].sum(axis=1).round(9))]
        lacking[subset[group]] -= counts[group]
    return subset[item_group]


def add_splits(records: Sequence[Record], fractions: dict[str, float], seed: int) -> list[Record]:
    """Return the records, each with a `split`; error records stay as they are."""
    names = list(fractions)
    assigned = _assign(records, list(fractions.values()), seed)
    return [record if subset is None else {**record, "split": names[subset]} for record, subset in assigned]


def add_folds(records: Sequence[Record], folds: int, fold: int, seed: int) -> list[Record]:
    """Return the records, each with its `fold` from 1 and a `split`: one fold tests, the next validates.

    Fewer than three folds, a `fold` outside 1 to `folds`, or more folds than any class has groups is a `UsageProblem`.
    """
    check_folds(folds, fold)
    pairs = {(record.get("label"), group_of(record)) for record in records if record["schema"] != ERROR}
    most = max(Counter(label for label, _ in pairs).values(), default=0)
    if folds > most:
        raise UsageProblem(f"--folds {folds}: no class has more than {most:,} groups (images, slides, patients)")
    role = {fold: "test", fold % folds + 1: "val"}
    assigned = _assign(records, [1 / folds] * folds, seed)
    return [
        record if subset is None else {**record, "fold": subset + 1, "split": role.get(subset + 1, "train")}
        for record, subset in assigned
    ]


def check_folds(folds: int, fold: int) -> None:
    """Refuse fewer than three folds, or a `fold` outside 1 to `folds`, by a `UsageProblem`."""
    if folds < 3:
        raise UsageProblem(f"--folds {folds}: at least 3 (one trains, one validates, one tests)")
    if not 1 <= fold <= folds:
        raise UsageProblem(f"--fold {fold}: from 1 to {folds}")


def _assign(records: Sequence[Record], fractions: list[float], seed: int) -> list[tuple[Record, int | None]]:
    """Return each record with the index of its subset; None for error records."""
    samples = [record for record in records if record["schema"] != ERROR]
    subsets = iter(assign_groups([r.get("label") for r in samples], [group_of(r) for r in samples], fractions, seed))
    return [(record, None if record["schema"] == ERROR else int(next(subsets))) for record in records]
