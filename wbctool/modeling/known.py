"""What runs have learnt from: their splits are kept, and none of it is tested by what is made of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from wbctool.console import note, warn
from wbctool.errors import InputError
from wbctool.inputs.dataset import Dataset
from wbctool.inputs.folders import read_inputs
from wbctool.records import ERROR, Record, group_of, has_image
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally


def with_their_splits(records: Iterable[Record], runs: Sequence[Path], quiet: bool) -> list[Record]:
    """Records that carry no split take those that a run was trained with, where it knows all of them."""
    records = list(records)
    asked = [record for record in records if record["schema"] != ERROR and has_image(record) and record.get("label")]
    if any(record.get("split") for record in asked):
        return records
    for run in runs:
        split_of = {_real(record["path"]): record.get("split") for record in _dataset_of(run)}
        if asked and all(split_of.get(_real(record["path"])) for record in asked):
            if not quiet:
                note(f"no splits in the records: those of {run} are taken")
            return [_with_split(record, split_of) for record in records]
    return records


def refuse_known(dataset: Dataset, runs: Sequence[Path]) -> None:
    """Refuse to stop on, or to test, images that a network has learnt from, or their groups.

    Raises:
        InputError: naming the run and one such image.
    """
    for run in runs:
        theirs = _dataset_of(run)
        if not theirs:
            warn(f"{run}: keeps no dataset.jsonl; whether it has learnt from these images cannot be told")
            continue
        learnt = {"val": ("train",), "test": ("train", "val")}
        for split, seen in learnt.items():
            own = [record for record in theirs if record.get("split") in seen]
            theirs_are = {key for record in own for key in _identities(record)}
            met = [record for record in dataset.splits[split] if theirs_are & _identities(record)]
            if met:
                raise InputError(
                    f"{len(met):,} {split} images, such as {met[0]['path']}, or their groups, were among the "
                    f"{' and '.join(seen)} images of {run}: figures of them would say nothing; "
                    "give the records that it was trained on, with their splits"
                )


def _dataset_of(run: Path) -> list[Record]:
    file = run / "dataset.jsonl"
    if not file.is_file():
        return []
    return [record for record in read_inputs([str(file)], Selection(), Tally()) if record["schema"] != ERROR]


def _with_split(record: Record, split_of: dict[str, str | None]) -> Record:
    split = None if record["schema"] == ERROR else split_of.get(_real(record["path"]))
    return {**record, "split": split} if split else record


def _identities(record: Record) -> set[tuple[str, str]]:
    """What an image is known by: its file, what that was made from, its group."""
    files = (record.get(key) for key in ("path", "source", "original"))
    return {("file", _real(file)) for file in files if isinstance(file, str)} | {("group", group_of(record))}


def _real(path: str) -> str:
    return os.path.realpath(path)
