"""From records to a dataset for training: labelled images, their splits, their preparation."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wbctool.console import note, warn
from wbctool.errors import InputError, counted
from wbctool.records import ERROR, PREDICTION, SPLITS, Record, group_of, has_image, preparation_of, to_line
from wbctool.records.composites import refuse_tested, refuse_unsplit, warning_of_tested
from wbctool.records.splits import add_splits

DEFAULT_FRACTIONS = {"train": 0.8, "val": 0.2}  # where the records have no splits


@dataclass
class Dataset:
    """Labelled records by split, their classes in alphabetical order, and how the first image was prepared."""

    splits: dict[str, list[Record]]
    classes: tuple[str, ...]
    preparation: dict[str, Any]

    @cached_property
    def everything(self) -> list[Record]:
        """All records, train before val before test."""
        return [record for records in self.splits.values() for record in records]

    def digest(self, masks: bool = False) -> str:
        """Return 32 hexadecimal digits that depend on the images, labels and splits, and on masks if `masks`."""
        lines = []
        for record in self.everything:
            state = {key: record.get(key) for key in ("path", "label", "split")}
            state["file"] = file_state(record["path"])
            if masks:
                state["mask"] = mask_state(record)
            lines.append(to_line(state))
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def mask_state(record: Record) -> list[Any]:
    """Return what identifies the mask of a record and its cell; empty without a mask."""
    if not isinstance(record.get("mask"), str):
        return []
    cell = [record.get(key) for key in ("value", "nucleus", "bbox", "crop", "cells")]
    return [record["mask"], *file_state(record["mask"]), cell]


def file_state(path: str) -> list[int]:
    """Return the size of a file, in bytes, and the time of its last change, in ns; empty if it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def gather(records: Iterable[Record], seed: int, quiet: bool = False, allow_synthetic: bool = False) -> Dataset:
    """Sort records into a dataset for training.

    Records without any split are split here, 80/20 into train and val, by class and whole groups. What cannot be
    trained on is left out and counted on stderr. With `allow_synthetic`, composites may be outside training, or made
    of images outside it.

    Raises:
        InputError: no labels, a single class, splits in some records only, a group in two splits, or composites that
            are not allowed.
    """
    labelled = _labelled(records, quiet)
    with_split = sum(bool(record.get("split")) for record in labelled)
    if not with_split:
        if not allow_synthetic:
            refuse_unsplit(labelled)
        labelled = add_splits(labelled, DEFAULT_FRACTIONS, seed)
        if not quiet:
            fractions = ", ".join(f"{fraction:.0%} {name}" for name, fraction in DEFAULT_FRACTIONS.items())
            note(f"no splits in the records: made one, {fractions}, groups whole (seed {seed})")
    elif with_split < len(labelled):
        raise InputError(
            f"{len(labelled) - with_split:,} of {len(labelled):,} records have no split; "
            "run `wbctool split` on all of them together"
        )
    splits = {name: [record for record in labelled if record["split"] == name] for name in SPLITS}
    if not allow_synthetic:
        refuse_tested(splits)
    elif warning := warning_of_tested(labelled):
        warn(warning)
    classes = _checked_classes(splits)
    preparations = {to_line(preparation_of(record)): preparation_of(record) for record in labelled}
    if len(preparations) > 1:
        warn(f"the images were prepared in {len(preparations)} ways, such as {' and '.join(list(preparations)[:2])}")
    return Dataset(splits, classes, next(iter(preparations.values())))


def _labelled(records: Iterable[Record], quiet: bool) -> list[Record]:
    """Return the records that can be trained on."""
    labelled: list[Record] = []
    left_out: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record["schema"] == ERROR:
            left_out["error record", ""] += 1
        elif record["schema"] == PREDICTION:
            left_out["prediction", ""] += 1
        elif not has_image(record):
            left_out["field", " without a cell"] += 1
        elif record.get("label") is None:
            left_out["record", " without a label"] += 1
        else:
            labelled.append(record)
    if not quiet:
        for (noun, reason), count in left_out.items():
            note(f"left out of training: {counted(count, noun)}{reason}")
    if not labelled:
        raise InputError(
            "no labelled image to train on: put images in a folder per class, or give --label-regex or --labels"
        )
    return labelled


def _checked_classes(splits: dict[str, list[Record]]) -> tuple[str, ...]:
    """Return the classes of splits that have no group in common, and of which each class can be trained on."""
    split_of: dict[str, str] = {}
    for name, records in splits.items():
        for group in map(group_of, records):
            if split_of.setdefault(group, name) != name:
                raise InputError(
                    f"group {group} is in both {split_of[group]} and {name}; "
                    "split again with `wbctool split`, which keeps groups whole"
                )
    counts = Counter(record["label"] for record in splits["train"])
    if len(counts) < 2:
        present = f"only {next(iter(counts))}" if counts else "none"
        raise InputError(f"training needs two classes or more in the train split; it has {present}")
    if single := sorted(name for name, count in counts.items() if count == 1):
        warn(f"class {', '.join(single)} has one training image")
    for name in ("val", "test"):
        if unknown := sorted({r["label"] for r in splits[name]} - set(counts)):
            raise InputError(
                f"class {', '.join(unknown)} is in {name} and not in train; split again, or leave it out with --classes"
            )
    missing = sorted(set(counts) - {r["label"] for r in splits["val"]})
    if splits["val"] and missing:
        warn(f"no validation image of class {', '.join(missing)}")
    return tuple(sorted(counts))
