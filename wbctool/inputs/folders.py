"""Reading inputs: records of folders, images, record files and pipes."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pydantic_core

from wbctool.errors import InputError, UsageProblem
from wbctool.inputs.images import absolute, count_images, find_images, has_image_suffix, image_record
from wbctool.inputs.run_folders import refuse_run
from wbctool.inputs.unique_ids import InputSource, UniqueIds
from wbctool.records import Record, error_record, from_line, with_absolute_paths
from wbctool.records.selection import Selection, Selector
from wbctool.records.tally import Tally

RECORD_SUFFIXES = (".jsonl", ".ndjson")
_Opener = Callable[[], IO[bytes]]
_SHARD = re.compile(r"records-(\d+)-of-(\d+)\.jsonl$")


def read_inputs(inputs: Iterable[str], selection: Selection, tally: Tally) -> Iterator[Record]:
    """Read the records of folders, images, record files and `-` (stdin), in order, with absolute paths.

    A damaged line of a record file becomes an error record, counted as `damaged`, so that one bad line never stops a
    folder. If two inputs have ids in common, their names are put in front of their ids (see `UniqueIds`); to know
    that, several inputs are read once before, and pipes among them to their end. A single input is streamed.

    Args:
        inputs: paths, or `-`.
        selection: where labels and groups come from, and which classes are kept.
        tally: counts what is read and left out.

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

    Raises:
        InputError: the folder is an unfinished output, or lacks shards.
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
        return _record_source("stdin", text, Path.cwd(), {"stdin": _pipe(lambda: sys.stdin.buffer, several)})
    path = Path(text)
    whole = absolute(path)
    if path.is_dir():
        files = record_files(path)
        if files:
            return _record_source(whole.name, str(whole), path, {file: partial(_open, file) for file in files})
        refuse_run(path)
        return InputSource(whole.name, str(whole), partial(find_images, path), lambda: find_images(path, Tally()))
    if not path.exists():
        raise InputError(f"{text}: no such file or folder")
    if has_image_suffix(text):
        read_image = partial(_read_image, path)
        return InputSource(whole.parent.name, f"{whole.parent}/", read_image, lambda: read_image(Tally()))
    if not path.is_file():
        return _record_source("pipe", str(whole), path.parent, {path: _pipe(partial(_open, path), several)})
    if path.suffix.lower() not in RECORD_SUFFIXES:
        raise InputError(f"{text}: is neither a folder, an image nor a .jsonl file of records")
    is_output = path.stem == "records" or _SHARD.search(path.name)
    name = whole.parent.name if is_output else path.stem
    return _record_source(name, str(whole), path.parent, {path: partial(_open, path)})


def _read_image(path: Path, tally: Tally) -> Iterator[Record]:
    yield image_record(path, path.name, tally)


def _open(path: Path) -> IO[bytes]:
    return open(path, "rb")


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


def _record_source(name: str, origin: str, base: Path, files: Mapping[Path | str, _Opener]) -> InputSource:
    """Return the source that reads record files; relative paths in them start in the folder `base`."""

    def read(tally: Tally) -> Iterator[Record]:
        for file, open_file in files.items():
            yield from _read_lines(open_file(), file, base, tally)

    def peek() -> Iterator[Record]:
        for open_file in files.values():
            yield from _peek_lines(open_file())

    return InputSource(name, origin, read, peek)


def _peek_lines(stream: IO[bytes]) -> Iterator[Record]:
    """Read records without validating more than that they have an id."""
    with stream:
        for raw in stream:
            with suppress(ValueError):
                record = pydantic_core.from_json(raw, allow_inf_nan=False)
                if isinstance(record, dict) and isinstance(record.get("id"), str):
                    yield record


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
            except UnicodeDecodeError:
                tally.damage(f"{location}: not UTF-8")
                yield error_record(location, None, f"{location}: not UTF-8")
            except InputError as error:
                tally.damage(str(error))
                yield error_record(location, None, str(error))
