"""Protecting inputs: no command may replace what it reads, whatever its options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from wbctool.errors import UsageProblem
from wbctool.inputs.folders import RECORD_SUFFIXES, files_of_records
from wbctool.inputs.images import has_image_suffix
from wbctool.records import Record

_NEXT = "give another, so that nothing is lost"


def refuse_replacing(
    option: str, file: Path, inputs: Iterable[str | Path], suffixes: Sequence[str] = RECORD_SUFFIXES
) -> None:
    """Refuse an output file that is an input, belongs to an input folder, or is an image.

    Args:
        option: by which the file was given.
        file: to be written.
        inputs: that are read: folders, files or `-`.
        suffixes: of files in an input folder that may be replaced, unless they are read.

    Raises:
        UsageProblem: naming the input.
    """
    if not file.exists():
        return
    if has_image_suffix(file.name):
        raise UsageProblem(f"{option} {file}: is an image; {_NEXT}")
    for path in map(Path, inputs):
        is_part = path.is_dir() and file.resolve().is_relative_to(path.resolve()) and file.suffix not in suffixes
        files_read = [path] if path.is_file() else files_of_records(path)
        if is_part or any(one.exists() and file.samefile(one) for one in files_read):
            raise UsageProblem(f"{option} {file}: belongs to the input {path}; {_NEXT}")


def refuse_holding(option: str, folder: Path, inputs: Iterable[str], records: Iterable[Record]) -> None:
    """Refuse an output folder that is, or contains, an input, or contains images or masks of it.

    A record file beside which the output is written, such as `out/split.jsonl`, is not in danger.

    Args:
        option: by which the folder was given.
        folder: to be written.
        inputs: that are read: folders, files or `-`.
        records: of the inputs, with absolute paths.

    Raises:
        UsageProblem: naming what would be in danger.
    """
    folder_path = folder.resolve()
    folders = {os.path.dirname(record[key]) for record in records for key in ("path", "mask") if key in record}
    for path in [*map(Path, inputs), *map(Path, sorted(folders))]:
        real = path.resolve()
        is_beside = real.is_file() and real.parent == folder_path and not real.name.startswith("records")
        if real.is_relative_to(folder_path) and not is_beside and str(path) != "-":
            raise UsageProblem(f"{option} {folder}: holds the input {path}; {_NEXT}")
