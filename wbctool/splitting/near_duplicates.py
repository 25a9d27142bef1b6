"""Grouping copies of one image, so that they stay in one split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from wbctool.console import Progress, note, warn
from wbctool.errors import InputError, counted
from wbctool.imaging.duplicates import COPIES_UP_TO, find_duplicates
from wbctool.records import ERROR, Record, group_of, image_id_of

_SHOWN = 5  # unreadable images that are named


def group_near_duplicates(records: Sequence[Record], quiet: bool = False) -> tuple[list[Record], int]:
    """Find near-duplicates among the images of records, and put those of one image into one group.

    Args:
        records: with error records, which stay as they are.
        quiet: show no progress and no notes on stderr.

    Returns:
        The records, and the number of images that could not be compared.

    Raises:
        InputError: none of the images can be read.
    """
    samples = [record for record in records if record["schema"] != ERROR]
    with Progress("near-duplicates", "images", quiet, total=len(samples)) as progress:
        duplicates = find_duplicates([record["path"] for record in samples], on_image=progress.step)
    failed = duplicates.failed
    if len(failed) == len(samples):
        raise InputError(f"--near-duplicates: none of the images can be read (first: {failed[0]})")
    for index, reason in list(failed.items())[:_SHOWN]:
        path = samples[index]["path"]
        warn(f"not compared: {reason}" if path in reason else f"not compared: {path}: {reason}")
    if len(failed) > _SHOWN:
        warn(f"not compared: {counted(len(failed) - _SHOWN, 'more image')} that cannot be read")
    joined = iter(join_duplicates(samples, duplicates.families))
    if not quiet:
        copies = len(samples) - len(set(duplicates.families.tolist()))
        note(f"{copies:,} of {len(samples):,} images are near-duplicates of another; copies of one image stay together")
        if not duplicates.turned:
            note(f"more than {COPIES_UP_TO:,} images: only upright, mirrored and quarter-turned copies were looked for")
    return [record if record["schema"] == ERROR else next(joined) for record in records], len(failed)


def join_duplicates(records: Sequence[Record], families: Sequence[int] | np.ndarray) -> list[Record]:
    """Join the groups that share near-duplicates; the joined group has the name of the first of them.

    Args:
        records: without error records.
        families: for each record, the number of its family of near-duplicates, from 0.

    Returns:
        The records; those of joined groups with a new `group`, and all but the first of each family with
        `near_duplicate_of`, the id of that first record.
    """
    group_names = {name: index for index, name in enumerate(dict.fromkeys(map(group_of, records)))}
    groups = np.array([group_names[group_of(record)] for record in records], np.int64)
    component = _connected(groups, np.asarray(families, np.int64), len(group_names))
    is_joined = np.bincount(component) > 1
    owners = {name: int(component[index]) for name, index in group_names.items()}
    new_names: dict[int, str] = {}
    first: dict[int, int] = {}
    result = []
    for index, (record, family, group) in enumerate(zip(records, families, groups, strict=True)):
        changed, number = dict(record), int(component[group])
        if is_joined[number]:
            if number not in new_names:
                new_names[number] = _free_name(record.get("group") or image_id_of(record), number, owners)
            changed["group"] = new_names[number]
        original = first.setdefault(int(family), index)
        if original != index:
            changed["near_duplicate_of"] = records[original]["id"]
        result.append(changed)
    return result


def _connected(groups: np.ndarray, families: np.ndarray, count: int) -> np.ndarray:
    """Return the connected component of each of `count` groups, where shared families connect groups."""
    nodes = count + len(groups)
    edges = sparse.coo_matrix((np.ones(len(groups), bool), (groups, count + families)), shape=(nodes, nodes))
    return sparse.csgraph.connected_components(edges, directed=False)[1][:count]


def _free_name(name: str, number: int, owners: dict[str, int]) -> str:
    """Return the name for a component, with a number behind it if the name belongs to another one."""
    free, count = name, 1
    while owners.setdefault(free, number) != number:
        count += 1
        free = f"{name} ({count})"
    return free
