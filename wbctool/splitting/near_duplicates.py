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

    Returns the records, error records as they are, and the number of images that could not be compared; if that is all
    of them, an `InputError` is raised.
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
    """Join the groups that share near-duplicates, by the family of each record, numbered from 0.

    Records of joined groups get the name of the first of these as their `group`, and all but the first record of each
    family get `near_duplicate_of`, the id of that first record.
    """
    group_names = {name: index for index, name in enumerate(dict.fromkeys(map(group_of, records)))}
    groups = np.array([group_names[group_of(record)] for record in records], np.int64)
    # the connected component of each group, where shared families connect groups
    nodes = len(group_names) + len(groups)
    edges = (groups, len(group_names) + np.asarray(families, np.int64))
    graph = sparse.coo_matrix((np.ones(len(groups), bool), edges), shape=(nodes, nodes))
    component = sparse.csgraph.connected_components(graph, directed=False)[1][: len(group_names)]
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


def _free_name(name: str, number: int, owners: dict[str, int]) -> str:
    """Return the name for a component, with a number behind it if the name belongs to another one."""
    free, count = name, 1
    while owners.setdefault(free, number) != number:
        count += 1
        free = f"{name} ({count})"
    return free
