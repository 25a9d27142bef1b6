"""Features kept on disk, so that nothing is computed twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wbctool.console import Progress
from wbctool.errors import InputError
from wbctool.inputs.dataset import file_state, mask_state
from wbctool.pipeline.locks import take_lock
from wbctool.records import Record
from wbctool.records.storage import read_json, write_json

_KEY = 16  # bytes

Row = np.ndarray | str  # the features of an image, (width,), float32, or why there are none
RowsOf = Callable[[Iterable[Sequence[Record]]], Iterator[list[Row]]]  # from batches to the rows of each


class Source(Protocol):
    """Where features come from."""

    name: str  # shown while they are computed
    identity: dict[str, Any]  # all that decides the features; another identity means other features
    width: int  # number of features of an image
    batch: int  # number of images that are computed together
    uses_masks: bool  # whether features depend on masks, too

    def session(self) -> AbstractContextManager[RowsOf]:
        """Open what computing needs, such as threads, and give the function that computes rows."""


class Store:
    """The features of one source, in files that only grow: (n, width), float32, read as a memory map.

    Rows are found by the state of an image's file and record, so that the features of a changed file are computed
    again. A killed command leaves whole rows. Damaged files are an `InputError`, those that another command is writing
    a `BusyError`.
    """

    def __init__(self, folder: Path, source: Source) -> None:
        self._source = source
        digest = hashlib.blake2b(json.dumps(source.identity, sort_keys=True).encode(), digest_size=8).hexdigest()
        self._matrix, self._keys, about = (folder / f"{digest}{ending}" for ending in (".f32", ".keys", ".json"))
        folder.mkdir(parents=True, exist_ok=True)
        identity = {**source.identity, "width": source.width}
        if about.exists():
            if read_json(about, f"remove {folder}; it is made again") != identity:
                raise InputError(f"{about}: is of other features; remove {folder}, it is made again")
        else:
            write_json(about, identity)
        self._lock = take_lock(self._keys, f"{folder}: another command is computing these features; wait for it to end")
        self._row_of = self._open()

    def _open(self) -> dict[bytes, int]:
        """Return the row of each key, and cut off what a killed command left half written."""
        self._matrix.touch()
        count = min(self._keys.stat().st_size // _KEY, self._matrix.stat().st_size // (4 * self._source.width))
        os.truncate(self._keys, count * _KEY)
        os.truncate(self._matrix, count * 4 * self._source.width)
        keys = self._keys.read_bytes()
        return {keys[start : start + _KEY]: start // _KEY for start in range(0, len(keys), _KEY)}

    def fill(self, records: Sequence[Record], quiet: bool) -> tuple[np.ndarray, dict[int, str]]:
        """Compute missing features; return the row of each record in `matrix()`, (n,), -1 for none, and failures.

        Failures are reasons by record number. Batches are cut by position, so that a resumed command computes what it
        would have computed at once.
        """
        keys, batches = self._missing(records)
        progress = Progress(f"xgboost-fuse: {self._source.name}", "images", quiet, sum(map(len, batches)))
        with self._source.session() as rows_of, progress:
            return self._add(records, keys, batches, rows_of, progress.step)

    def fill_batch(self, records: Sequence[Record], rows_of: RowsOf) -> tuple[np.ndarray, dict[int, str]]:
        """See `fill`; for a part of the records, in a session of the source."""
        return self._add(records, *self._missing(records), rows_of)

    def _missing(self, records: Sequence[Record]) -> tuple[list[bytes], list[range]]:
        """Return the key of each record, and the batches with a record that has no row."""
        keys = [_key_of(record, self._source.uses_masks) for record in records]
        size = self._source.batch
        batches = [range(start, min(start + size, len(keys))) for start in range(0, len(keys), size)]
        return keys, [batch for batch in batches if any(keys[index] not in self._row_of for index in batch)]

    def _add(
        self,
        records: Sequence[Record],
        keys: Sequence[bytes],
        batches: Sequence[range],
        rows_of: RowsOf,
        on_row: Callable[[bool], None] = lambda failed: None,
    ) -> tuple[np.ndarray, dict[int, str]]:
        failed: dict[int, str] = {}
        with open(self._matrix, "ab") as stream:
            computed = rows_of([records[index] for index in batch] for batch in batches)
            for batch, rows in zip(batches, computed, strict=True):
                added = []
                for index, row in zip(batch, rows, strict=True):
                    on_row(isinstance(row, str))
                    if isinstance(row, str):
                        failed[index] = row
                    elif keys[index] not in self._row_of:
                        self._row_of[keys[index]] = len(self._row_of)
                        stream.write(np.ascontiguousarray(row, np.float32).tobytes())
                        added.append(keys[index])
                stream.flush()
                self._lock.write(b"".join(added))  # after its row: a key without one would be cut off
                self._lock.flush()
        return np.array([self._row_of.get(key, -1) for key in keys], np.int64), failed

    def matrix(self) -> np.ndarray:
        """Return all rows, a read-only memory map of shape (rows, width), float32."""
        if not self._row_of:
            return np.zeros((0, self._source.width), np.float32)
        return np.memmap(self._matrix, np.float32, "r", shape=(len(self._row_of), self._source.width))

    def close(self) -> None:
        """Let other commands write."""
        self._lock.close()


def _key_of(record: Record, with_mask: bool) -> bytes:
    state = [record["path"], *file_state(record["path"]), *(mask_state(record) if with_mask else ())]
    return hashlib.blake2b(json.dumps(state).encode(), digest_size=_KEY).digest()
