"""Stratified assignment of whole groups to subsets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wbctool.errors import UsageProblem


def parse_ratio(text: str) -> dict[str, float]:
    """Parse `70/15/15` as fractions of train, val and test, or `80/20` as those of train and test.

    Raises:
        UsageProblem: it is not two or three numbers with a positive sum and some training.
    """
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
    If every group is one item, each class is within one item of its fraction. The result does not depend
    on the order of the items.

    Args:
        labels: the class of each of n items; None is a class of its own.
        groups: the group of each item.
        fractions: the fraction of each subset; they sum to 1. A subset with fraction 0 stays empty.
        seed: of the random order.

    Returns:
        The index of each item's subset, shape (n,), int.
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
