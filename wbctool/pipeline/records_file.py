"""A file of records that is whole or absent, and can be resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from wbctool.pipeline.locks import take_lock
from wbctool.records import CELL, ERROR, Record, image_id_of, to_line, with_absolute_paths, with_relative_paths
from wbctool.records.storage import temporary_table, text_digest


class RecordsFile:
    """A record file that is being written.

    While the command runs, its records are in `.NAME.part`; NAME appears when all are there. What a killed command
    wrote is kept in `.NAME.done` for the next one.

    Args:
        path: the file.
        busy: error message where another process writes it.
        overwrite: use nothing of an earlier file.
        base: folder that paths in the file are relative to; None for absolute paths.
        several: whether an input may give several records, with ids `input#1`, `input#2`….
        newest_model: modification time (ns) of what the records were made by; older records are not used.

    Raises:
        BusyError: another process writes the file.
    """

    def __init__(
        self,
        path: Path,
        busy: str,
        overwrite: bool = False,
        base: Path | None = None,
        several: bool = False,
        newest_model: int = 0,
    ) -> None:
        self._path, self._base, self._several = path, base, several
        self._part = path.with_name(f".{path.name}.part")
        self._done = path.with_name(f".{path.name}.done")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = take_lock(self._part, busy)
        if overwrite:
            self._done.unlink(missing_ok=True)
        else:
            self._keep_part()
        self._stream.truncate(0)
        self._index = _Index()
        for file in () if overwrite else (path, self._done):
            if file.exists() and file.stat().st_mtime_ns >= newest_model:
                self._index.add(file, self._keys_in(file))
        self._index.close()

    def _keep_part(self) -> None:
        """Add what a killed command wrote to what earlier ones did, except its last input: some of its records may
        be missing."""
        changed = os.fstat(self._stream.fileno()).st_mtime_ns
        self._stream.seek(0)
        waiting: list[bytes] = []
        waiting_key: str | None = None
        with open(self._done, "ab") as stream:
            for line in self._stream:
                key = self._input_id(line)
                if key is not None and key != waiting_key:
                    stream.writelines(waiting)
                    waiting, waiting_key = [], key
                if key is not None:
                    waiting.append(line)
            stream.flush()
            os.fsync(stream.fileno())
            empty = stream.tell() == 0
        if empty:
            self._done.unlink()
        else:  # images that change after the kill are newer
            os.utime(self._done, ns=(changed, changed))

    def _keys_in(self, file: Path) -> Iterator[tuple[str, int]]:
        offset = 0
        with open(file, "rb") as stream:
            for line in stream:
                key = self._input_id(line)
                if key is not None:
                    yield key, offset
                offset += len(line)

    def _input_id(self, line: bytes) -> str | None:
        """The id of the input that a line was made from; None for a torn line or an error record."""
        try:
            record = json.loads(line)
            if not line.endswith(b"\n") or record["schema"] == ERROR:
                return None
            return image_id_of(record) if self._several and record["schema"] == CELL else record["id"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def earlier(self, input_id: str) -> Iterator[tuple[Record, int]]:
        """Records that earlier commands made from an input, and the modification time (ns) of their file."""
        for file, offset in self._index.lines_of(input_id):
            with open(file, "rb") as stream:
                stream.seek(offset)
                record = json.loads(stream.readline())
                changed = os.fstat(stream.fileno()).st_mtime_ns
            yield (with_absolute_paths(record, self._base) if self._base else record), changed

    def write(self, record: Record) -> None:
        """Append a record; it has left the process when this returns."""
        written = with_relative_paths(record, self._base) if self._base else record
        self._stream.write((to_line(written) + "\n").encode())
        self._stream.flush()

    def finish(self) -> None:
        """Put the file in place."""
        os.fsync(self._stream.fileno())
        os.replace(self._part, self._path)
        self._done.unlink(missing_ok=True)
        self._stream.close()


class _Index:
    """Where the records of each input are, in a table on disk."""

    def __init__(self) -> None:
        self._files: list[Path] = []
        self._table = temporary_table("CREATE TABLE lines (digest INTEGER, file INTEGER, offset INTEGER)")

    def add(self, file: Path, rows: Iterable[tuple[str, int]]) -> None:
        """Add the lines of a file, each with the id of its input and its offset."""
        number = len(self._files)
        self._files.append(file)
        lines = ((text_digest(key, "id"), number, offset) for key, offset in rows)
        self._table.executemany("INSERT INTO lines VALUES (?, ?, ?)", lines)

    def close(self) -> None:
        """Sort the table; nothing is added afterwards."""
        self._table.execute("CREATE INDEX by_digest ON lines (digest)")

    def lines_of(self, input_id: str) -> list[tuple[Path, int]]:
        """File and offset of the lines of an input, in the order they were added."""
        query = "SELECT file, offset FROM lines WHERE digest = ? ORDER BY rowid"
        return [
            (self._files[file], offset) for file, offset in self._table.execute(query, (text_digest(input_id, "id"),))
        ]
