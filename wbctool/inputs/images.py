"""Finding images in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from wbctool.records import IMAGE, Record, error_record
from wbctool.records.tally import Tally

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".gif", ".ppm", ".pgm")
)
_OUTPUT_FILES = ("run.json", "run-*-of-*.json", "records.jsonl", "records-*-of-*.jsonl", ".records*")


def count_images(folder: Path) -> int:
    """Count the files under a folder that look like images, roughly and fast."""
    count = 0
    for path, _, names in os.walk(folder):
        if Path(path) == folder or not is_output_folder(Path(path)):
            count += sum(map(has_image_suffix, names))
    return count


def has_image_suffix(name: str) -> bool:
    """Return whether the name of a file ends as that of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_output_folder(folder: Path) -> bool:
    """Return whether a command of wbctool has written, or is writing, its output to a folder."""
    return any(next(folder.glob(pattern), None) for pattern in _OUTPUT_FILES)


def absolute(path: Path) -> Path:
    """Return the absolute path; links in it stay, except where `..` would follow one."""
    whole = path.absolute()
    if whole.name == "..":
        return whole.resolve()
    return whole.parent.resolve() / whole.name if ".." in whole.parts else whole


def image_record(path: Path, image_id: str, tally: Tally) -> Record:
    """Return the record of an image, with its parent folder inside the input as its label."""
    whole = str(absolute(path))
    try:
        whole.encode()
    except UnicodeEncodeError:
        reason = f"{printable(whole)}: the path is not UTF-8; rename what is not"
        tally.damage(reason)
        return error_record(printable(image_id), None, reason)
    record: Record = {"schema": IMAGE, "id": image_id, "path": whole}
    if parent := PurePosixPath(image_id).parent.name:
        record["label"] = parent
    return record


def printable(name: str) -> str:
    """Return the name of a file with bytes that are not UTF-8 as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def find_images(
    folder: Path, tally: Tally, prefix: str = "", visited: set[tuple[int, int]] | None = None
) -> Iterator[Record]:
    """Find all images under a folder, sorted within each folder; every folder is visited once, also through links.

    Output folders of wbctool inside the folder are left out. The label of an image is the name of its parent folder
    inside `folder`. For a folder inside it, `prefix` is its path there, and `visited` holds the folders before it.
    """
    folder, status = absolute(folder), os.stat(folder)
    visited = set() if visited is None else visited
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    subfolders = []
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        reason = f"{printable(str(folder))}: {error.strerror}"
        tally.damage(reason)
        yield error_record(printable(prefix) or ".", printable(str(folder)), reason)
        return
    for name, is_folder in names:
        if name.startswith("."):
            tally.counts["hidden"] += 1
        elif is_folder:
            subfolders.append(name)
        elif not has_image_suffix(name):
            tally.counts["no image"] += 1
        else:
            yield image_record(folder / name, prefix + name, tally)
    for name in subfolders:
        if is_output_folder(folder / name):
            tally.counts["output folder"] += 1
        else:
            yield from find_images(folder / name, tally, f"{prefix}{name}/", visited)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
