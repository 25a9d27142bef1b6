"""Writing: whole files or none, output names, and output folders that can be resumed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wbctool import __version__
from wbctool.errors import InputError, UsageProblem
from wbctool.pipeline.locks import BUSY, take_lock
from wbctool.pipeline.names import Names
from wbctool.records import (
    CELL,
    ERROR,
    Record,
    image_id_of,
    path_keys,
    source_of,
    to_line,
    with_absolute_paths,
    with_relative_paths,
)
from wbctool.records.storage import read_json, temporary_table, text_digest, write_json


def read_run(file: Path, what: str) -> dict[str, Any]:
    """Read a `run.json`; its `settings` and `counts` are objects.

    Raises:
        InputError: it is missing or damaged.
    """
    run = {"settings": {}, "counts": {}, **read_json(file, what)}
    if not isinstance(run["settings"], dict) or not isinstance(run["counts"], dict):
        raise InputError(f"{file}: damaged (no settings); {what}")
    return run


class _Places:
    """Where in which file the records made from an input are, however many there are."""

    def __init__(self) -> None:
        self._files: list[Path] = []
        self._held = temporary_table("CREATE TABLE held (digest INTEGER, file INTEGER, offset INTEGER)")

    def add(self, file: Path, rows: Iterable[tuple[str, int]]) -> None:
        """Note the inputs' ids of a file's lines, each with its offset."""
        number = len(self._files)
        self._files.append(file)
        made = ((text_digest(key, "id"), number, offset) for key, offset in rows)
        self._held.executemany("INSERT INTO held VALUES (?, ?, ?)", made)

    def close(self) -> None:
        """No more is added."""
        self._held.execute("CREATE INDEX by_digest ON held (digest)")

    def of(self, key: str) -> list[tuple[Path, int]]:
        """The lines of an input, in the order they were added."""
        found = self._held.execute(
            "SELECT file, offset FROM held WHERE digest = ? ORDER BY rowid", (text_digest(key, "id"),)
        )
        return [(self._files[number], offset) for number, offset in found]


def _said(key: str, value: Any) -> str:
    if value is None or value is False:
        return f"without {key}"
    return f"with {key}" if value is True else f"with {key} {value}"


def check_settings(folder: Path, pattern: str, run: dict[str, Any]) -> None:
    """Refuse to go on in a folder that another command, or other settings, have made.

    Args:
        folder: the output folder.
        pattern: of its run files, such as `run*.json`.
        run: `command` and `settings` of this run.

    Raises:
        UsageProblem: naming the first setting that differs.
    """
    for file in sorted(folder.glob(pattern)):
        old = read_run(file, f"remove {folder} or give --overwrite")
        if old.get("command") != run["command"]:
            raise UsageProblem(f"{folder}: made by `wbctool {old.get('command')}`; give another folder, or --overwrite")
        before, now = old["settings"], json.loads(json.dumps(run["settings"]))
        for key in dict.fromkeys([*now, *sorted(before)]):
            if before.get(key) != now.get(key):
                if key == "images":
                    raise UsageProblem(
                        f"{folder}: its images, labels or splits have changed since; "
                        "give another folder, or --overwrite to make it anew"
                    )
                made, wanted = _said(key, before.get(key)), _said(key, now.get(key))
                raise UsageProblem(
                    f"{folder}: made {made}, not {wanted}; give another folder, or --overwrite to make it anew"
                )


class OutputFolder:
    """An output folder being made: records in input order, finished work kept, run.json.

    While the command runs, its records stand in `.records.jsonl.part`; `records.jsonl` appears
    when all are there. A rerun keeps every record whose files are still in place and newer than
    their source. `origin` is the key under which a record names the image it was made from, where
    that is not its `source` or `path`; such a record has its input's id.

    Raises:
        UsageProblem: the folder was made with other settings (and `overwrite` is off).
        InputError: another command is writing it.
    """

    def __init__(
        self,
        path: Path,
        command: str,
        settings: dict[str, Any],
        shard: tuple[int, int] | None = None,
        overwrite: bool = False,
        origin: str | None = None,
        reserved: tuple[str, ...] = (),
    ) -> None:
        self.path = path.resolve()
        self._origin = origin
        self.names = Names(reserved)
        ending = f"-{shard[0]}-of-{shard[1]}" if shard else ""
        self._records = self.path / f"records{ending}.jsonl"
        self._part = self.path / f".records{ending}.jsonl.part"
        self._done = self.path / f".records{ending}.jsonl.done"
        self._run_file = self.path / f"run{ending}.json"
        self._run = {"command": command, "version": __version__, "settings": settings}
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{path}: is a file; give a folder with -o")
        if not overwrite:
            # a shard's neighbours must have been made with the same settings too
            check_settings(path, "run*.json", self._run)
            if self._records.exists() and not self._run_file.exists():
                raise UsageProblem(f"{path}: holds records and no run.json; give another folder, or --overwrite")
        self.path.mkdir(parents=True, exist_ok=True)
        self._stream = take_lock(self._part, f"{path}: {BUSY}")
        if overwrite:
            self._records.unlink(missing_ok=True)
            self._done.unlink(missing_ok=True)
            self._remove_other_sharding(shard[1] if shard else None)
        else:
            self._keep_part()
        self._stream.truncate(0)
        self._old = _Places() if overwrite else self._index()
        write_json(self._run_file, {**self._run, "finished": False})

    def _remove_other_sharding(self, count: int | None) -> None:
        # records of a whole run beside those of shards, or of another number of shards, would be stale
        for pattern in ("records*.jsonl", ".records*.part", ".records*.done", "run*.json"):
            for file in self.path.glob(pattern):
                match = re.search(r"-of-(\d+)\.", file.name)
                if (int(match[1]) if match else None) != count:
                    file.unlink()

    def _keep_part(self) -> None:
        # What a killed run had done joins what earlier ones had, but for its last input, of which
        # some records may be missing.
        self._stream.seek(0)
        held: list[bytes] = []
        held_key: str | None = None
        with open(self._done, "ab") as stream:
            for line in self._stream:
                key = self._input_key_of(line)
                if key is not None and key != held_key:
                    stream.writelines(held)
                    held, held_key = [], key
                if key is not None:
                    held.append(line)
            stream.flush()
            os.fsync(stream.fileno())

    def _index(self) -> _Places:
        places = _Places()
        for file in (self._records, self._done):
            if file.exists():
                places.add(file, self._keys_in(file))
        places.close()
        return places

    def _keys_in(self, file: Path) -> Iterator[tuple[str, int]]:
        offset = 0
        with open(file, "rb") as stream:
            for line in stream:
                key = self._input_key_of(line)
                if key is not None:
                    yield key, offset
                offset += len(line)

    def finished(self, record: Record, expected: set[str]) -> list[Record] | None:
        """The records an earlier run made from this input, if all are there and their files stand.

        Args:
            record: the input.
            expected: the ids of the records that a run would make from it.
        """
        found: dict[str, Record] = {}
        for file, offset in self._old.of(record["id"]):
            with open(file, "rb") as stream:
                stream.seek(offset)
                old = with_absolute_paths(json.loads(stream.readline()), self.path)
            came_from = old.get(self._origin) if self._origin else source_of(old)
            if came_from == record["path"] and self._stands(old, record):
                found[old["id"]] = old
        return list(found.values()) if set(found) == expected else None

    def _stands(self, old: Record, record: Record) -> bool:
        """Whether the files of an old record exist and are newer than what they were made from."""
        made = [old[key] for key in path_keys(old) if Path(old[key]).is_relative_to(self.path)]
        sources = [record[key] for key in ("path", "mask") if key in record]
        try:
            newest = max(os.stat(path).st_mtime_ns for path in sources)
            return all(os.stat(path).st_mtime_ns >= newest for path in made)
        except OSError:
            return False

    def write(self, record: Record) -> None:
        """Append one record; it has left the process when this returns."""
        self._stream.write((to_line(with_relative_paths(record, self.path)) + "\n").encode())
        self._stream.flush()

    def finish(self, counts: dict[str, int], **more: Any) -> None:
        """Put `records.jsonl` and `run.json` in place."""
        os.fsync(self._stream.fileno())
        os.replace(self._part, self._records)
        self._done.unlink(missing_ok=True)
        write_json(self._run_file, {**self._run, **more, "counts": counts, "finished": True})
        self._stream.close()

    def _input_key_of(self, line: bytes) -> str | None:
        """The id of the input a line was made from; None where the line is torn or an error."""
        try:
            record = json.loads(line)
            if not line.endswith(b"\n") or record["schema"] == ERROR:
                return None
            several = record["schema"] == CELL and not self._origin
            return image_id_of(record) if several else record["id"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
