"""From records to what is trained on: labelled samples, their split, their preparation."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wbctool.console import note, warn
from wbctool.errors import InputError
from wbctool.records import ERROR, PREDICTION, Record, group_of, has_image, preparation_of, to_line
from wbctool.records.composites import is_composite, refuse_tested, refuse_unsplit
from wbctool.records.splits import add_splits

OWN_SHARES = {"train": 0.8, "val": 0.2}


@dataclass
class Dataset:
    """Labelled records by split.

    Attributes:
        splits: records of `train`, `val` and `test`, those there are.
        classes: their labels, in alphabetical order.
        preparation: how the images were made, as the first record says it: `crop` and `enhance`.
    """

    splits: dict[str, list[Record]]
    classes: tuple[str, ...]
    preparation: dict[str, Any]

    @cached_property
    def everything(self) -> list[Record]:
        """All records, train before val before test."""
        return [record for records in self.splits.values() for record in records]

    def digest(self, masks: bool = False) -> str:
        """Changes when an image, its label or its split does, and, with `masks`, its mask; 32 hexadecimal digits."""
        lines = []
        for record in self.everything:
            told = {key: record.get(key) for key in ("path", "label", "split")}
            told["file"] = file_state(record["path"])
            if masks:
                told["mask"] = mask_state(record)
            lines.append(to_line(told))
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def mask_state(record: Record) -> list[Any]:
    """All that says which cell of a record is measured, and by which mask; empty without one."""
    if not isinstance(record.get("mask"), str):
        return []
    cell = [record.get(key) for key in ("value", "nucleus", "bbox", "crop", "cells")]
    return [record["mask"], *file_state(record["mask"]), cell]


def file_state(path: str) -> list[int]:
    """Size in bytes and time of change of a file, ns; empty where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def gather(records: Iterable[Record], seed: int, quiet: bool = False, allow_synthetic: bool = False) -> Dataset:
    """Sort records into a dataset, counting what is left out.

    Records without any split are split here, 80/20 into train and val, by class and whole groups.

    Raises:
        InputError: nothing to train on: no labels, one class, splits in some only; or composites outside training,
            or made of images outside it, and not `allow_synthetic`.
    """
    kept: list[Record] = []
    left_out: Counter[str] = Counter()
    for record in records:
        if record["schema"] == ERROR:
            left_out["error records"] += 1
        elif not has_image(record):
            kind = "predictions" if record["schema"] == PREDICTION else "fields without a cell"
            left_out[kind] += 1
        elif record.get("label") is None:
            left_out["records without a label"] += 1
        else:
            kept.append(record)
    if not quiet:
        for what, count in left_out.items():
            note(f"left out of training: {count:,} {what}")
    if not kept:
        raise InputError(
            "no labelled image to train on: put images in a folder per class, or give --label-regex or --labels"
        )
    with_split = [record for record in kept if record.get("split")]
    if not with_split:
        if not allow_synthetic:
            refuse_unsplit(kept)
        kept = add_splits(kept, OWN_SHARES, seed)
        note_own = ", ".join(f"{share:.0%} {name}" for name, share in OWN_SHARES.items())
        if not quiet:
            note(f"no splits in the records: made one, {note_own}, groups whole (seed {seed})")
    elif len(with_split) < len(kept):
        raise InputError(
            f"{len(kept) - len(with_split):,} of {len(kept):,} records have no split; "
            "run `wbctool split` on all of them together"
        )
    splits = {name: [r for r in kept if r["split"] == name] for name in ("train", "val", "test")}
    if allow_synthetic:
        held = sum(is_composite(record) for name in ("val", "test") for record in splits[name])
        if held:
            warn(f"{held:,} composites are in validation or test: figures of them say nothing of real images")
    else:
        refuse_tested(splits)
    _check_groups(splits)
    return Dataset(splits, _classes(splits), _common_preparation(kept))


def _classes(splits: dict[str, list[Record]]) -> tuple[str, ...]:
    counts = Counter(record["label"] for record in splits["train"])
    if len(counts) < 2:
        found = f"only {next(iter(counts))}" if counts else "none"
        raise InputError(f"training needs two classes or more in the train split; it has {found}")
    single = sorted(name for name, count in counts.items() if count == 1)
    if single:
        warn(f"class {', '.join(single)} has one training image")
    for name in ("val", "test"):
        unknown = sorted({r["label"] for r in splits[name]} - set(counts))
        if unknown:
            raise InputError(
                f"class {', '.join(unknown)} is in {name} and not in train; split again, or leave it out with --classes"
            )
    lacking = sorted(set(counts) - {r["label"] for r in splits["val"]})
    if splits["val"] and lacking:
        warn(f"no validation image of class {', '.join(lacking)}")
    return tuple(sorted(counts))


def _check_groups(splits: dict[str, list[Record]]) -> None:
    seen: dict[str, str] = {}
    for name, records in splits.items():
        for record in records:
            group = group_of(record)
            if seen.setdefault(group, name) != name:
                raise InputError(
                    f"group {group} is in both {seen[group]} and {name}; "
                    "split again with `wbctool split`, which keeps groups whole"
                )


def _common_preparation(records: list[Record]) -> dict[str, Any]:
    kinds = {to_line(preparation_of(record)): preparation_of(record) for record in records}
    if len(kinds) > 1:
        warn(f"the images were prepared in {len(kinds)} ways, such as {' and '.join(list(kinds)[:2])}")
    return next(iter(kinds.values()))
