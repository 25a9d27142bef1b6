"""Stratified assignment of whole groups to parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wbctool.errors import UsageProblem


def parse_ratio(text: str) -> dict[str, float]:
    """`70/15/15` as shares of train, val and test; `80/20` as train and test.

    Raises:
        UsageProblem: it is not two or three numbers with a positive sum and some training.
    """
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        numbers = []
    names = {2: ("train", "test"), 3: ("train", "val", "test")}.get(len(numbers))
    if not names or min(numbers) < 0 or not 0 < sum(numbers) < float("inf") or numbers[0] <= 0:
        raise UsageProblem(f"--ratio {text}: write train/val/test or train/test, such as 70/15/15 or 80/20")
    return {name: number / sum(numbers) for name, number in zip(names, numbers, strict=True)}


def assign(labels: Sequence[str | None], groups: Sequence[str], shares: Sequence[float], seed: int) -> np.ndarray:
    """Assign items to parts, keeping groups whole and each class near its share in every part.

    Groups are taken in random order, larger ones first; each goes to the part that lacks most of
    the group's classes, and of such parts with one share to that which lacks most in all. Where every
    group is one item, each class is within one item of its share. The result does not depend on the
    order of the items.

    Args:
        labels: the class of each of n items; None is a class of its own.
        groups: the group of each item.
        shares: the share of each part; they sum to 1. A part with share 0 stays empty.
        seed: of the random order.

    Returns:
        The part of each item, shape (n,), int.
    """
    classes = sorted({label or "" for label in labels})
    names = sorted(set(groups))
    class_at = {name: index for index, name in enumerate(classes)}
    group_at = {name: index for index, name in enumerate(names)}
    item_group = np.array([group_at[group] for group in groups])
    counts = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(counts, (item_group, np.array([class_at[label or ""] for label in labels], np.int64)), 1)
    totals = counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    weights = np.asarray(shares, np.float64)
    lacking = np.outer(weights, totals)
    part = np.empty(len(names), np.int64)
    for group in order:
        wish = (lacking * (counts[group] / totals)).sum(axis=1)
        wish[weights <= 0] = -np.inf
        wish = np.round(wish, 9)
        first = int(np.argmax(wish))
        alike = np.flatnonzero((wish == wish[first]) & (weights == weights[first]))
        part[group] = first if len(alike) == 1 else alike[np.argmax(lacking[alike].sum(axis=1).round(9))]
        lacking[part[group]] -= counts[group]
    return part[item_group]
