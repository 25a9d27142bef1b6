"""Reading inputs: records of folders, images, record files and pipes."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pydantic_core

from wbctool.errors import InputError, UsageProblem
from wbctool.inputs.images import absolute, count_images, find_images, has_image_suffix, image_record, printable
from wbctool.inputs.run_folders import refuse_unfinished
from wbctool.records import PREDICTION, Record, error_record, from_line, image_id_of, with_absolute_paths
from wbctool.records.selection import Selection, Selector
from wbctool.records.storage import temporary_table, text_digest
from wbctool.records.tally import Tally

RECORD_SUFFIXES = (".jsonl", ".ndjson")
_Opener = Callable[[], IO[bytes]]
_SHARD = re.compile(r"records-(\d+)-of-(\d+)\.jsonl$")


@dataclass(frozen=True)
class InputSource:
    """One input of a command; `peek` reads its records beforehand, not validated.

    Its `origin` is the path that its ids are relative to; images of one folder, given one by one, have one origin.
    """

    name: str
    origin: str
    read: Callable[[Tally], Iterator[Record]]
    peek: Callable[[Tally], Iterator[Record]]


def read_inputs(inputs: Iterable[str], selection: Selection, tally: Tally) -> Iterator[Record]:
    """Read the records of folders, images, record files and `-` (stdin), in order, with absolute paths.

    A damaged line of a record file becomes an error record, counted as `damaged`, so that one bad line never stops a
    folder. If two inputs have ids in common, their names are put in front of their ids (see `UniqueIds`); to know
    that, several inputs are read once before, and pipes among them to their end. A single input is streamed.

    Raises:
        InputError: an input that does not exist, is unfinished, a run folder, or neither folder, image nor records.
        UsageProblem: an invalid option, or an input that is given twice.
    """
    inputs = list(inputs)
    selector = Selector(selection, tally)
    paths = names_of(inputs)
    if twice := [text for number, text in enumerate(inputs) if paths[number] in paths[:number]]:
        raise UsageProblem(f"{twice[0]}: is given twice; give it once")
    sources = [_open_input(text, several=len(inputs) > 1) for text in inputs]  # errors before the first record
    unique = UniqueIds(sources) if len(sources) > 1 else None
    prefixes = unique.prefixes if unique else {}
    tally.prefixes = list(prefixes.values())
    for source in sources:
        for record in source.read(tally):
            selected = selector.apply(record, prefixes.get(source.origin, ""))
            if selected is not None:
                yield unique.apply(selected, source.origin) if unique else selected


def names_of(inputs: Iterable[str]) -> list[str]:
    """Return the absolute paths of inputs; `-` stays as it is."""
    return [text if text == "-" else str(absolute(Path(text))) for text in inputs]


def how_many(inputs: Iterable[str]) -> int | None:
    """Count the records of inputs, roughly and fast, for progress; None if that is not known beforehand."""
    count = 0
    for text in inputs:
        path = Path(text)
        files = record_files(path) if path.is_dir() else [path] if path.suffix.lower() in RECORD_SUFFIXES else []
        if text == "-" or any(not file.is_file() for file in files):
            return None
        for file in files:
            with open(file, "rb") as stream:
                count += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
        if not files:
            count += count_images(path) if path.is_dir() else 1
    return count


def record_files(folder: Path) -> list[Path]:
    """Return the record files of an output folder: `records.jsonl`, or all its shards in order; else none.

    An unfinished output, or one that lacks shards, is an `InputError`.
    """
    whole = folder / "records.jsonl"
    if whole.exists():
        return [whole]
    if any(folder.glob(".records*.part")) or any(folder.glob(".records*.done")):
        raise InputError(f"{folder}: the command that makes this folder has not finished; run it again to go on")
    matches = filter(None, (_SHARD.search(str(file)) for file in folder.glob("records-*-of-*.jsonl")))
    shards = {(int(match[2]), int(match[1])): Path(match.string) for match in matches}
    counts = sorted({count for count, _ in shards})
    if len(counts) > 1:
        raise InputError(f"{folder}: holds shards of different runs ({', '.join(f'of {n}' for n in counts)})")
    missing = [str(index) for count in counts for index in range(1, count + 1) if (count, index) not in shards]
    if missing:
        raise InputError(f"{folder}: shards {', '.join(missing)} of {counts[0]} are missing; run them first")
    return [shards[key] for key in sorted(shards)]


def _open_input(text: str, several: bool) -> InputSource:
    if text == "-":
        if sys.stdin.isatty():
            raise UsageProblem("-: stdin is a terminal; pipe records into it, or give a folder")
        return _record_source("stdin", text, Path.cwd(), ["stdin"], _pipe(lambda: sys.stdin.buffer, several))
    path = Path(text)
    whole = absolute(path)
    if path.is_dir():
        if files := record_files(path):
            return _record_source(whole.name, str(whole), path, files)
        if (path / "model.json").is_file():
            raise InputError(f"{path}: is a run folder; give images or records")
        refuse_unfinished(path)
        return InputSource(whole.name, str(whole), partial(find_images, path), partial(find_images, path))
    if not path.exists():
        raise InputError(f"{text}: no such file or folder")
    if has_image_suffix(text):
        read_image = partial(_read_image, path)
        return InputSource(whole.parent.name, f"{whole.parent}/", read_image, read_image)
    if not path.is_file():
        return _record_source("pipe", str(whole), path.parent, [path], _pipe(lambda: open(path, "rb"), several))
    if path.suffix.lower() not in RECORD_SUFFIXES:
        raise InputError(f"{text}: is neither a folder, an image nor a .jsonl file of records")
    is_output = path.stem == "records" or _SHARD.search(path.name)
    name = whole.parent.name if is_output else path.stem
    return _record_source(name, str(whole), path.parent, [path])


def _read_image(path: Path, tally: Tally) -> Iterator[Record]:
    yield image_record(path, path.name, tally)


def _pipe(open_pipe: _Opener, several: bool) -> _Opener:
    """Return a function that opens a pipe; among several inputs it opens a copy, which can be read again."""
    if not several:
        return open_pipe
    copy = TemporaryFile()
    with open_pipe() as pipe:
        shutil.copyfileobj(pipe, copy)

    def open_copy() -> IO[bytes]:
        copy.seek(0)
        return os.fdopen(os.dup(copy.fileno()), "rb")

    return open_copy


def _record_source(
    name: str, origin: str, base: Path, files: Sequence[Path | str], open_pipe: _Opener | None = None
) -> InputSource:
    """Return the source that reads record files or a pipe; relative paths in them start in the folder `base`."""

    def read(tally: Tally) -> Iterator[Record]:
        for file in files:
            yield from _read_lines(open_pipe() if open_pipe else open(file, "rb"), file, base, tally)

    def peek(_tally: Tally) -> Iterator[Record]:
        for file in files:
            with open_pipe() if open_pipe else open(file, "rb") as stream:
                for raw in stream:
                    with suppress(ValueError):
                        record = pydantic_core.from_json(raw, allow_inf_nan=False)
                        if isinstance(record, dict) and isinstance(record.get("id"), str):
                            yield record

    return InputSource(name, origin, read, peek)


def _read_lines(stream: IO[bytes], name: Path | str, base: Path, tally: Tally) -> Iterator[Record]:
    tally.file, base = str(name), base.resolve()
    with stream:
        for number, raw in enumerate(stream, 1):
            if not raw.strip():
                continue
            tally.line = number
            location = tally.location
            try:
                record = from_line(raw.decode("utf-8"), location)
                if name == "stdin" and not os.path.exists(base / (record.get("path") or "")):
                    tally.counts["not here"] += not os.path.isabs(record["path"])
                yield with_absolute_paths(record, base)
            except (UnicodeDecodeError, InputError) as error:
                reason = str(error) if isinstance(error, InputError) else f"{location}: not UTF-8"
                tally.damage(reason)
                yield error_record(location, None, reason)


class UniqueIds:
    """Makes ids unique across the inputs of one command.

    Where two inputs have an id in common, the names of both are put in front of all their ids: `TRAIN/EO/1.jpg`. All
    inputs are read once beforehand to find these; only digests of ids are kept, on disk. The same inputs always get
    the same ids. Predictions keep the ids of their images, by which runs are compared. The `prefixes`, by the origin of
    the input, are empty if no id is in two inputs.
    """

    def __init__(self, sources: Sequence[InputSource]) -> None:
        self._origins = list(dict.fromkeys(source.origin for source in sources))
        # names: image ids of cells, and folders at the top, with `/` behind them
        columns = "digest INTEGER, is_id INTEGER, origin INTEGER, PRIMARY KEY (digest, is_id, origin)"
        self._names = temporary_table(f"CREATE TABLE names ({columns}) WITHOUT ROWID")
        for source in sources:
            self._names.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", self._rows(source))
        query = "SELECT DISTINCT origin FROM names WHERE is_id AND digest IN (SELECT digest FROM names WHERE is_id "
        query += "GROUP BY digest HAVING COUNT(*) > 1)"
        clashing = {self._origins[number] for (number,) in self._names.execute(query)}
        self.prefixes: dict[str, str] = {}
        for source in sources:
            if source.origin not in clashing or source.origin in self.prefixes:
                continue
            name, number = printable(source.name) or "input", 1
            prefix = f"{name}/"
            while prefix in self.prefixes.values() or self._with_name(prefix) - clashing:
                number += 1
                prefix = f"{name}-{number}/"
            self.prefixes[source.origin] = prefix

    def _rows(self, source: InputSource) -> Iterator[tuple[int, bool, int]]:
        origin, last_folder = self._origins.index(source.origin), ""
        for record in source.peek(Tally()):
            if record.get("schema") == PREDICTION:
                continue
            record_id, image_id = record["id"], image_id_of(record)
            yield text_digest(record_id, "id"), True, origin
            if image_id != record_id:
                yield text_digest(image_id, "id"), False, origin
            folder, slash, _ = record_id.partition("/")
            if slash and folder != last_folder:
                yield text_digest(f"{folder}/", "id"), False, origin
                last_folder = folder

    def _with_name(self, name: str) -> set[str]:
        """Return the origins of the inputs that have an id, an image id or a top folder of this name."""
        rows = self._names.execute("SELECT origin FROM names WHERE digest = ?", (text_digest(name, "id"),))
        return {self._origins[number] for (number,) in rows}

    def apply(self, record: Record, origin: str) -> Record:
        """Return a record of an input with its unique id; ids of other images in it are adapted, too."""
        if not self.prefixes:
            return record
        changed = {}
        if record["schema"] != PREDICTION:
            changed["id"] = self.prefixes.get(origin, "") + record["id"]
        if isinstance(record.get("near_duplicate_of"), str):
            changed["near_duplicate_of"] = self._unique(record["near_duplicate_of"], origin)[0]
        if isinstance(record.get("sources"), list):
            changed["sources"] = [new for old in record["sources"] for new in self._unique(old, origin)]
        return {**record, **changed}

    def _unique(self, image_id: object, origin: str) -> list[object]:
        """Return the new id of an image of the same input, else its ids in all inputs that have it."""
        origins = self._with_name(image_id) if isinstance(image_id, str) else set()
        chosen = [origin] if origin in origins else sorted(origins, key=self._origins.index)
        return [self.prefixes.get(one, "") + str(image_id) for one in chosen] or [image_id]
