"""Finding images, and reading records of folders, files and pipes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from wbctool.errors import InputError, UsageProblem
from wbctool.inputs.run_folders import refuse_run
from wbctool.records import IMAGE, Record, error_record, from_line, with_absolute_paths
from wbctool.records.selection import Selection, Selector, Tally

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".gif", ".ppm", ".pgm")
)
_MADE_HERE = ("run.json", "run-*-of-*.json", "records.jsonl", "records-*-of-*.jsonl", ".records*")
_SHARD = re.compile(r"records-(\d+)-of-(\d+)\.jsonl$")


def read_inputs(inputs: Iterable[str], selection: Selection, tally: Tally) -> Iterator[Record]:
    """Records of folders, images, record files and `-`, in order, with absolute paths.

    A line of a record file that is damaged comes out as an error record, counted under
    `damaged`, so that one bad line never stops a folder.

    Raises:
        InputError: an input that does not exist, is unfinished, a run folder, or neither folder, image nor records.
        UsageProblem: an option that cannot be read.
    """
    selector = Selector(selection, tally)
    sources = [_open_input(given, tally) for given in inputs]  # errors before the first record
    for source in sources:
        for record in source:
            chosen = selector.apply(record)
            if chosen is not None:
                yield chosen


def _open_input(given: str, tally: Tally) -> Iterator[Record]:
    if given == "-":
        if sys.stdin.isatty():
            raise UsageProblem("-: stdin is a terminal; pipe records into it, or give a folder")
        return _read_lines("stdin", Path.cwd(), tally)
    path = Path(given)
    if path.is_dir():
        files = record_files(path)
        if files:
            return (record for file in files for record in _read_lines(file, path, tally))
        refuse_run(path)
        return find_images(path, tally)
    if not path.exists():
        raise InputError(f"{given}: no such file or folder")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return iter([_image_record(path, path.name, tally)])
    if path.suffix.lower() in (".jsonl", ".ndjson") or not path.is_file():
        return _read_lines(path, path.parent, tally)
    raise InputError(f"{given}: is neither a folder, an image nor a .jsonl file of records")


def how_many(inputs: Iterable[str]) -> int | None:
    """About how many records inputs hold, quickly and for progress only; None where that is not known."""
    count = 0
    for given in inputs:
        path = Path(given)
        files = record_files(path) if path.is_dir() else [path] if path.suffix.lower() in (".jsonl", ".ndjson") else []
        if given == "-" or any(not file.is_file() for file in files):
            return None
        for file in files:
            with open(file, "rb") as stream:
                count += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
        if path.is_dir() and not files:
            for folder, _, names in os.walk(path):
                own = Path(folder) == path or not any(next(Path(folder).glob(one), None) for one in _MADE_HERE)
                count += own and sum(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in names)
        elif not files:
            count += 1
    return count


def record_files(folder: Path) -> list[Path]:
    """The record files of an output folder: `records.jsonl`, or all its shards in order; else none.

    Raises:
        InputError: the folder is an output that is not finished, or lacks shards.
    """
    whole = folder / "records.jsonl"
    if whole.exists():
        return [whole]
    if any(folder.glob(".records*.part")) or any(folder.glob(".records*.done")):
        raise InputError(f"{folder}: the command that makes this folder has not finished; run it again to go on")
    shards: dict[int, dict[int, Path]] = {}
    for file in folder.glob("records-*-of-*.jsonl"):
        match = _SHARD.search(file.name)
        if match:
            shards.setdefault(int(match[2]), {})[int(match[1])] = file
    if not shards:
        return []
    if len(shards) > 1:
        raise InputError(f"{folder}: holds shards of different runs ({', '.join(f'of {n}' for n in sorted(shards))})")
    count, found = shards.popitem()
    missing = sorted(set(range(1, count + 1)) - set(found))
    if missing:
        raise InputError(f"{folder}: shards {', '.join(map(str, missing))} of {count} are missing; run them first")
    return [found[index] for index in range(1, count + 1)]


def _read_lines(file: Path | str, base: Path, tally: Tally) -> Iterator[Record]:
    stream = sys.stdin.buffer if file == "stdin" else open(file, "rb")
    tally.file, base = str(file), base.resolve()
    with stream:
        for number, raw in enumerate(stream, 1):
            if not raw.strip():
                continue
            tally.line = number
            where = tally.place
            try:
                record = from_line(raw.decode("utf-8"), where)
                if file == "stdin" and not os.path.exists(base / (record.get("path") or "")):
                    tally.counts["not here"] += not os.path.isabs(record["path"])
                yield with_absolute_paths(record, base)
            except UnicodeDecodeError:
                tally.damage(f"{where}: not UTF-8")
                yield error_record(where, None, f"{where}: not UTF-8")
            except InputError as error:
                tally.damage(str(error))
                yield error_record(where, None, str(error))


def find_images(folder: Path, tally: Tally) -> Iterator[Record]:
    """Image records of all images under a folder, sorted within each folder, links followed once.

    The label of an image is the name of its parent folder inside `folder`.
    """
    yield from _walk(absolute(folder), "", tally, set())


def absolute(path: Path) -> Path:
    """The path from the root; links in it stay, but where `..` would step over one."""
    whole = path.absolute()
    if whole.name == "..":
        return whole.resolve()
    return whole.parent.resolve() / whole.name if ".." in whole.parts else whole


def _walk(folder: Path, prefix: str, tally: Tally, seen: set[tuple[int, int]]) -> Iterator[Record]:
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    subfolders = []
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        yield error_record(prefix or ".", str(folder), f"{folder}: {error.strerror}")
        tally.damage(f"{folder}: {error.strerror}")
        return
    for name, is_folder in names:
        if name.startswith("."):
            tally.counts["hidden"] += 1
        elif is_folder:
            subfolders.append(name)
        elif os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
            tally.counts["no image"] += 1
        else:
            yield _image_record(folder / name, prefix + name, tally)
    for name in subfolders:
        inner = folder / name
        if any(next(inner.glob(pattern), None) for pattern in _MADE_HERE):
            tally.counts["output folder"] += 1
        else:
            yield from _walk(inner, f"{prefix}{name}/", tally, seen)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _image_record(path: Path, image_id: str, tally: Tally) -> Record:
    whole = str(absolute(path))
    try:
        whole.encode()
    except UnicodeEncodeError:
        shown, place = (os.fsencode(text).decode("utf-8", "backslashreplace") for text in (image_id, whole))
        reason = f"{place}: the path is not UTF-8; rename what is not"
        tally.damage(reason)
        return error_record(shown, None, reason)
    record: Record = {"schema": IMAGE, "id": image_id, "path": whole}
    parent = PurePosixPath(image_id).parent.name
    if parent:
        record["label"] = parent
    return record
