"""Where the records of a step go: an output folder or a record file, both resumable, or nowhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from wbctool import __version__
from wbctool.errors import InputError, UsageProblem
from wbctool.pipeline.locks import BUSY
from wbctool.pipeline.names import Names
from wbctool.pipeline.records_file import RecordsFile
from wbctool.records import Record, path_keys, source_of
from wbctool.records.storage import read_json, write_json

Unchanged = Callable[[Record, Record], bool]


class Output:
    """Where the records of a step go. This one keeps nothing: records go to stdout only.

    Attributes:
        path: the folder or file; None for none.
    """

    path: Path | None = None

    def take_name(self, record: Record) -> str:
        """The output name of an input; raises `ImageError` where it can have none."""
        return str(record["id"])

    def finished(self, record: Record, expected: set[str], unchanged: Unchanged) -> list[Record] | None:
        """The records that an earlier command made from an input, if all are there and still fit.

        Args:
            record: the input.
            expected: ids of the records that it gives.
            unchanged: whether an old record fits its input, apart from files.
        """
        return None

    def write(self, record: Record) -> None:
        """Append a record; it has left the process when this returns."""

    def finish(self, **more: Any) -> None:
        """Put the output in place; `more` goes into its `run.json`, where it has one."""


def read_run(file: Path, advice: str) -> dict[str, Any]:
    """Read a `run.json`; its `settings` and `counts` are objects.

    Raises:
        InputError: it is missing or damaged; `advice` says what to do.
    """
    run = {"settings": {}, "counts": {}, **read_json(file, advice)}
    if not isinstance(run["settings"], dict) or not isinstance(run["counts"], dict):
        raise InputError(f"{file}: damaged (no settings); {advice}")
    return run


def _setting(key: str, value: Any) -> str:
    if value is None or value is False:
        return f"without {key}"
    return f"with {key}" if value is True else f"with {key} {value}"


def check_settings(folder: Path, pattern: str, run: dict[str, Any]) -> None:
    """Refuse to continue in a folder that was made by another command or with other settings.

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
                    problem = "its images, labels or splits have changed"
                else:
                    problem = f"made {_setting(key, before.get(key))}, not {_setting(key, now.get(key))}"
                raise UsageProblem(f"{folder}: {problem}; give another folder, or --overwrite to replace it")


def lies_in(path: str, folder: Path) -> bool:
    """Whether a file lies in a folder, links resolved."""
    return _real_folder(os.path.dirname(path)).is_relative_to(_real_folder(str(folder)))


@lru_cache(maxsize=256)
def _real_folder(path: str) -> Path:
    return Path(path).resolve()


class OutputFolder(Output):
    """An output folder that is being written: files, records in input order, and `run.json`.

    A rerun keeps every record whose files exist and are newer than what they were made from.

    Args:
        path: the folder.
        command: the subcommand.
        settings: all that decides the output.
        shard: (i, n) for a part of the output.
        overwrite: discard an earlier output.
        origin: key of a record that names the image it was made from, where that is not its `source` or `path`;
            such a record has its input's id.
        reserved: subfolders that the step uses itself.

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
        self.path: Path = path.resolve()
        self._origin = origin
        self._names = Names(reserved)
        ending = f"-{shard[0]}-of-{shard[1]}" if shard else ""
        records = self.path / f"records{ending}.jsonl"
        self._run_file = self.path / f"run{ending}.json"
        self._run = {"command": command, "version": __version__, "settings": settings}
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{path}: is a file; give a folder with -o")
        if not overwrite:
            # the other shards must have been made with the same settings, too
            check_settings(path, "run*.json", self._run)
            if records.exists() and not self._run_file.exists():
                raise UsageProblem(f"{path}: holds records and no run.json; give another folder, or --overwrite")
        self._records = RecordsFile(records, f"{path}: {BUSY}", overwrite, self.path, several=origin is None)
        if overwrite:
            records.unlink(missing_ok=True)
            self._remove_other_shards(shard[1] if shard else None)
        write_json(self._run_file, {**self._run, "finished": False})

    def _remove_other_shards(self, count: int | None) -> None:
        """Remove the records of a whole run beside those of shards, or of another number of shards."""
        for pattern in ("records*.jsonl", ".records*.part", ".records*.done", "run*.json"):
            for file in self.path.glob(pattern):
                match = re.search(r"-of-(\d+)\.", file.name)
                if (int(match[1]) if match else None) != count:
                    file.unlink()

    def take_name(self, record: Record) -> str:
        return self._names.take(record["id"])

    def finished(self, record: Record, expected: set[str], unchanged: Unchanged) -> list[Record] | None:
        kept: dict[str, Record] = {}
        for old, written in self._records.earlier(record["id"]):
            image = old.get(self._origin) if self._origin else source_of(old)
            files = [old[key] for key in path_keys(old) if Path(old[key]).is_relative_to(self.path)]
            if image == record["path"] and _newer(files, written, record) and unchanged(old, record):
                kept[old["id"]] = old
        return list(kept.values()) if set(kept) == expected else None

    def write(self, record: Record) -> None:
        self._records.write(record)

    def finish(self, **more: Any) -> None:
        self._records.finish()
        write_json(self._run_file, {**self._run, **more, "finished": True})


class OutputFile(Output):
    """A record file that is being written.

    Args:
        path: the file.
        overwrite: discard an earlier file.
        newest_model: modification time (ns) of the model; records older than it are not used again.

    Raises:
        BusyError: another command is writing it.
    """

    def __init__(self, path: Path, overwrite: bool, newest_model: int) -> None:
        self.path: Path = path
        busy = f"{path}: another command is writing this file; wait for it to end"
        self._records = RecordsFile(path, busy, overwrite, newest_model=newest_model)

    def finished(self, record: Record, expected: set[str], unchanged: Unchanged) -> list[Record] | None:
        for old, written in self._records.earlier(record["id"]):
            if {old["id"]} == expected and _newer([], written, record) and unchanged(old, record):
                return [old]
        return None

    def write(self, record: Record) -> None:
        self._records.write(record)

    def finish(self, **_more: Any) -> None:
        self._records.finish()


def _newer(files: Sequence[str], written: int, record: Record) -> bool:
    """Whether files, or without any the record that was written at a time (ns), are newer than an input's files."""
    sources = [record[key] for key in ("path", "mask") if isinstance(record.get(key), str)]
    try:
        newest = max(os.stat(path).st_mtime_ns for path in sources)
        return min((os.stat(path).st_mtime_ns for path in files), default=written) >= newest
    except OSError:
        return False
