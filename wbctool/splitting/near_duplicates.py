"""Copies of one image joined into one group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from wbctool.records import Record, group_of


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
