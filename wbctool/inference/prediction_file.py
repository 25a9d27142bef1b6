"""A file of predictions that is whole or absent, and can be resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbctool.errors import InputError, UsageProblem
from wbctool.pipeline.locks import take_lock
from wbctool.records import ERROR, PREDICTION, Record, to_line

if TYPE_CHECKING:
    pass


_LOOKED_AT = ("id", "path", "mask", "value", "nucleus", "bbox", "cells")  # keys of what a run may look at


_HOW = ("views", "precision")  # keys of a prediction that say what was asked for otherwise


class PredictionFile:
    """A file of predictions that is whole or absent; a killed run's batches are used again.

    Args:
        path: the file.
        newer_than: files (weights) that outdate old predictions.
        overwrite: use nothing of what is there.
        run: the name of the run, or of several.
        how: what it does otherwise than it was trained.

    Raises:
        InputError: the file is there and holds something else.
        UsageProblem: it holds what another run has predicted.
        BusyError: another command is writing it.
    """

    def __init__(
        self, path: Path, newer_than: Sequence[Path], overwrite: bool, run: str, how: dict[str, Any] | None = None
    ) -> None:
        self._run, self._how = run, how or {}
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._new = path.with_name(f".{path.name}.part.new")
        self._old: list[Record] = []
        self._old_time = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = path.with_name(f".{path.name}.lock")
        self._lock = take_lock(self._lock_file, f"{path}: another command is writing this file; wait for it to end")
        if not overwrite:
            if path.exists() and len(_whole_records(path)) == 0 and path.stat().st_size:
                raise InputError(f"{path}: is there and holds no predictions; give another file, or --overwrite")
            self._refuse_others()
            outdated = max(file.stat().st_mtime_ns for file in newer_than)
            for file in (path, self._part):
                if file.exists() and file.stat().st_mtime_ns >= outdated:
                    found = _whole_records(file)
                    if len(found) > len(self._old):
                        self._old, self._old_time = found, file.stat().st_mtime_ns
        self._position = 0
        self._kept = self._new
        self._stream = open(self._new, "wb")

    def _refuse_others(self) -> None:
        """Refuse to replace what another run, or the same otherwise, has predicted."""
        for old in _whole_records(self._path) if self._path.exists() else ():
            if old["schema"] == PREDICTION:
                if old.get("run") != self._run:
                    raise UsageProblem(
                        f"{self._path}: holds predictions of {old.get('run')}; give another file, or --overwrite"
                    )
                for key in _HOW:
                    if old.get(key) != self._how.get(key):
                        raise UsageProblem(
                            f"{self._path}: predicted with {key} {old.get(key, 'as trained')}, "
                            f"not {self._how.get(key, 'as trained')}; give another file, or --overwrite"
                        )
                return

    def reuse(self) -> Callable[[list[Record]], list[Record] | None]:
        """For `predict`: what an earlier run of the same model said of the same, unchanged images."""

        def reused(batch: list[Record]) -> list[Record] | None:
            start, self._position = self._position, self._position + len(batch)
            old = self._old[start : start + len(batch)]
            if len(old) < len(batch) or not all(self._same(was, now) for was, now in zip(old, batch, strict=True)):
                return None
            made = ("schema", "run", "predicted", "confidence", "probabilities", "temperature", "missing", *_HOW)
            return [
                {**record, **{key: was[key] for key in made if key in was}}
                for was, record in zip(old, batch, strict=True)
            ]

        return reused

    def _same(self, was: Record, record: Record) -> bool:
        known = all(was.get(key) == record.get(key) for key in _LOOKED_AT) and was["schema"] == PREDICTION
        try:
            known = known and was.get("run") == self._run and all(was.get(key) == self._how.get(key) for key in _HOW)
            files = [record[key] for key in ("path", "mask") if isinstance(record.get(key), str)]
            return known and all(os.stat(file).st_mtime_ns <= self._old_time for file in files)
        except OSError:
            return False

    def write(self, record: Record) -> None:
        """Append one record."""
        self._stream.write((to_line(record) + "\n").encode())

    def keep(self) -> None:
        """Make what was written so far survive a kill, once it exceeds what an earlier run left."""
        self._stream.flush()
        if self._position >= len(self._old) and self._kept == self._new:
            os.replace(self._new, self._part)
            self._kept = self._part

    def finish(self) -> None:
        """Put the file in place."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        os.replace(self._kept, self._path)
        self._part.unlink(missing_ok=True)
        self._lock_file.unlink(missing_ok=True)
        self._lock.close()


def _whole_records(file: Path) -> list[Record]:
    """The leading whole lines that are predictions or errors."""
    records = []
    for line in file.read_bytes().splitlines(keepends=True):
        try:
            record = json.loads(line)
            if not line.endswith(b"\n") or record["schema"] not in (PREDICTION, ERROR):
                break
        except (ValueError, TypeError, KeyError):
            break
        records.append(record)
    return records
