"""Splits and folds written into records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from wbctool.errors import UsageProblem
from wbctool.folders import group_of
from wbctool.records import ERROR, Record
from wbctool.splitting.assign import assign


def add_splits(records: Sequence[Record], shares: dict[str, float], seed: int) -> list[Record]:
    """The records, each with a `split`; error records as they are."""
    names = list(shares)
    parts = _parts(records, list(shares.values()), seed)
    return [record if part is None else {**record, "split": names[part]} for record, part in parts]


def add_folds(records: Sequence[Record], folds: int, fold: int, seed: int) -> list[Record]:
    """The records, each with its `fold` from 1 and a `split`: one fold tests, the next validates.

    Raises:
        UsageProblem: fewer than three folds, a fold that is none of them, or more folds than any class has groups.
    """
    check_folds(folds, fold)
    found = {(record.get("label"), group_of(record)) for record in records if record["schema"] != ERROR}
    most = max(Counter(label for label, _ in found).values(), default=0)
    if folds > most:
        raise UsageProblem(f"--folds {folds}: no class has more than {most:,} groups (images, slides, patients)")
    role = {fold: "test", fold % folds + 1: "val"}
    parts = _parts(records, [1 / folds] * folds, seed)
    return [
        record if part is None else {**record, "fold": part + 1, "split": role.get(part + 1, "train")}
        for record, part in parts
    ]


def check_folds(folds: int, fold: int) -> None:
    """Refuse fewer than three folds, or a fold that is none of them.

    Raises:
        UsageProblem: says which.
    """
    if folds < 3:
        raise UsageProblem(f"--folds {folds}: at least 3 (one trains, one validates, one tests)")
    if not 1 <= fold <= folds:
        raise UsageProblem(f"--fold {fold}: from 1 to {folds}")


def join_duplicates(records: Sequence[Record], families: Sequence[int] | np.ndarray) -> list[Record]:
    """The records, where near-same images of several groups are one group: that of the first of them.

    Args:
        records: without error records.
        families: of near-same images, the number of the one each record is in.

    Returns:
        Those that joined have a new `group`, and all but the first of their family `near_duplicate_of`, its id.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(map(group_of, records)))}
    groups = np.array([names[group_of(record)] for record in records], np.int64)
    count = len(names)
    ends = (groups, count + np.asarray(families, np.int64))
    table = sparse.coo_matrix((np.ones(len(records), bool), ends), shape=(count + len(records),) * 2)
    joined = sparse.csgraph.connected_components(table, directed=False)[1][:count]
    several = np.bincount(joined) > 1
    taken = {name: int(joined[number]) for name, number in names.items()}
    new: dict[int, str] = {}
    first: dict[int, int] = {}
    done = []
    for index, (record, family, group) in enumerate(zip(records, families, groups, strict=True)):
        made, number = dict(record), int(joined[group])
        if several[number]:
            if number not in new:
                new[number] = _untaken(record.get("group") or record["id"].partition("#")[0], number, taken)
            made["group"] = new[number]
        original = first.setdefault(int(family), index)
        if original != index:
            made["near_duplicate_of"] = records[original]["id"]
        done.append(made)
    return done


def _untaken(name: str, number: int, taken: dict[str, int]) -> str:
    """The name, with a number behind it where another group has it."""
    found, count = name, 1
    while taken.setdefault(found, number) != number:
        count += 1
        found = f"{name} ({count})"
    return found


def _parts(records: Sequence[Record], shares: list[float], seed: int) -> list[tuple[Record, int | None]]:
    samples = [record for record in records if record["schema"] != ERROR]
    parts = iter(assign([r.get("label") for r in samples], [group_of(r) for r in samples], shares, seed))
    return [(record, None if record["schema"] == ERROR else int(next(parts))) for record in records]
