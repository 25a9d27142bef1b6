"""Checks of images against runs: their splits are kept, no leakage, the same preparation."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wbctool.console import note, warn
from wbctool.errors import InputError
from wbctool.inputs.dataset import Dataset
from wbctool.inputs.folders import read_inputs
from wbctool.records import ERROR, Record, group_of, has_image, preparation_of
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally


def take_over_splits(records: Iterable[Record], runs: Sequence[Path], quiet: bool) -> list[Record]:
    """Return the records; if none has a split, with those of a run that was trained on all of them."""
    records = list(records)
    labelled = [record for record in records if record["schema"] != ERROR and has_image(record) and record.get("label")]
    if any(record.get("split") for record in labelled):
        return records
    for run in runs:
        split_of = {_real(record["path"]): record.get("split") for record in _training_records(run)}
        if labelled and all(split_of.get(_real(record["path"])) for record in labelled):
            if not quiet:
                note(f"no splits in the records: those of {run} are taken")
            return [_with_split(record, split_of) for record in records]
    return records


def refuse_leakage(dataset: Dataset, runs: Sequence[Path]) -> None:
    """Refuse to validate or test on images that a run has learnt from, or on images of their groups."""
    for run in runs:
        records = _training_records(run)
        if not records:
            warn(f"{run}: keeps no dataset.jsonl; whether it has learnt from these images cannot be checked")
            continue
        for split, learnt_splits in {"val": ("train",), "test": ("train", "val")}.items():
            learnt = {
                identity
                for record in records
                if record.get("split") in learnt_splits
                for identity in _identities(record)
            }
            leaked = [record for record in dataset.splits[split] if learnt & _identities(record)]
            if leaked:
                raise InputError(
                    f"{len(leaked):,} {split} images, such as {leaked[0]['path']}, or their groups, were among the "
                    f"{' and '.join(learnt_splits)} images of {run}: figures of them would say nothing; "
                    "give the records that it was trained on, with their splits"
                )


def _training_records(run: Path) -> list[Record]:
    """The records that a run was trained, validated and tested on."""
    file = run / "dataset.jsonl"
    if not file.is_file():
        return []
    return [record for record in read_inputs([str(file)], Selection(), Tally()) if record["schema"] != ERROR]


def _with_split(record: Record, split_of: dict[str, str | None]) -> Record:
    split = None if record["schema"] == ERROR else split_of.get(_real(record["path"]))
    return {**record, "split": split} if split else record


def _identities(record: Record) -> set[tuple[str, str]]:
    """What identifies an image: its file, the file it was made from, its group."""
    paths = (record.get(key) for key in ("path", "source", "original"))
    return {("file", _real(path)) for path in paths if isinstance(path, str)} | {("group", group_of(record))}


def _real(path: str) -> str:
    return os.path.realpath(path)


class PreparationCheck:
    """Counts images that were prepared differently from the training images of runs, by their name and `model.json`."""

    def __init__(self, runs: Iterable[tuple[str, dict[str, Any]]]) -> None:
        self._preparations = {name: info.get("preparation", {}) for name, info in runs}
        self._counts: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Take an image into account."""
        preparation = preparation_of(record)
        for name, expected in self._preparations.items():
            self._counts[name] += preparation != expected

    def warnings(self, advice: str = "") -> list[str]:
        """One line for each run that has such images; `advice` says what to do."""
        return [
            f"{count:,} images were prepared differently from those of {name} (see `wbctool info {name}`){advice}"
            for name, count in self._counts.items()
            if count
        ]
