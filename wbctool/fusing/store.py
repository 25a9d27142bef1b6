"""Features kept on disk: what was computed once is not computed again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
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

Row = np.ndarray | str


class Source(Protocol):
    """Where features come from.

    Attributes:
        name: shown while they are computed.
        identity: all that decides them; other values are other features.
        width: how many there are of an image.
        together: how many images are computed at once.
        masked: whether masks decide them, too.
    """

    name: str
    identity: dict[str, Any]
    width: int
    together: int
    masked: bool

    def rows(self, batches: Iterable[Sequence[Record]]) -> Iterator[list[Row]]:
        """Of each batch the features of each image, (width,) float32, or why there are none."""


class Store:
    """The features of one source, in files that only grow, (n, width) float32; read as a memory map.

    Rows are found by what an image's file and record say, so a file that changed is computed again. A killed
    run leaves whole rows.

    Args:
        folder: where the files are.
        source: of the features.

    Raises:
        InputError: the files are damaged.
        BusyError: another command is writing them.
    """

    def __init__(self, folder: Path, source: Source) -> None:
        self._source = source
        digest = hashlib.blake2b(json.dumps(source.identity, sort_keys=True).encode(), digest_size=8).hexdigest()
        self._rows, self._keys, about = (folder / f"{digest}{ending}" for ending in (".f32", ".keys", ".json"))
        folder.mkdir(parents=True, exist_ok=True)
        told = {**source.identity, "width": source.width}
        if about.exists():
            if read_json(about, f"remove {folder}; it is made again") != told:
                raise InputError(f"{about}: is of other features; remove {folder}, it is made again")
        else:
            write_json(about, told)
        self._lock = take_lock(self._keys, f"{folder}: another command is computing these features; wait for it to end")
        self._places = self._open()

    def _open(self) -> dict[bytes, int]:
        """Where each row is; what a killed run left behind half written is cut off."""
        self._rows.touch()
        whole = min(self._keys.stat().st_size // _KEY, self._rows.stat().st_size // (4 * self._source.width))
        os.truncate(self._keys, whole * _KEY)
        os.truncate(self._rows, whole * 4 * self._source.width)
        keys = self._keys.read_bytes()
        return {keys[start : start + _KEY]: start // _KEY for start in range(0, len(keys), _KEY)}

    def fill(self, records: Sequence[Record], quiet: bool) -> tuple[np.ndarray, dict[int, str]]:
        """Compute what is missing of records.

        Batches are cut by position, so that a run that goes on computes what it would have computed at once.

        Returns:
            The row of each record in `matrix()`, (n,), -1 for none; and why, by its index.
        """
        keys = [_key_of(record, self._source.masked) for record in records]
        together = self._source.together
        blocks = [range(start, min(start + together, len(keys))) for start in range(0, len(keys), together)]
        blocks = [block for block in blocks if any(keys[index] not in self._places for index in block)]
        failed: dict[int, str] = {}
        total = sum(map(len, blocks))
        with (
            open(self._rows, "ab") as stream,
            Progress(f"xgboost-fuse: {self._source.name}", "images", quiet, total) as progress,
        ):
            made = self._source.rows([records[index] for index in block] for block in blocks)
            for block, rows in zip(blocks, made, strict=True):
                added = []
                for index, row in zip(block, rows, strict=True):
                    progress.step(isinstance(row, str))
                    if isinstance(row, str):
                        failed[index] = row
                    elif keys[index] not in self._places:
                        self._places[keys[index]] = len(self._places)
                        stream.write(np.ascontiguousarray(row, np.float32).tobytes())
                        added.append(keys[index])
                stream.flush()
                self._lock.write(b"".join(added))  # after its row: a key without one would be cut off
                self._lock.flush()
        return np.array([self._places.get(key, -1) for key in keys], np.int64), failed

    def matrix(self) -> np.ndarray:
        """All rows, a read-only memory map of shape (rows, width), float32."""
        if not self._places:
            return np.zeros((0, self._source.width), np.float32)
        return np.memmap(self._rows, np.float32, "r", shape=(len(self._places), self._source.width))

    def close(self) -> None:
        """Let others write."""
        self._lock.close()


def _key_of(record: Record, masked: bool) -> bytes:
    told = [record["path"], *file_state(record["path"]), *(mask_state(record) if masked else ())]
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=_KEY).digest()
