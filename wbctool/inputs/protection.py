"""Protecting inputs: no command may replace what it reads, whatever its options."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from wbctool.errors import UsageProblem
from wbctool.inputs.folders import RECORD_SUFFIXES, record_files
from wbctool.records import Record

_NEXT = "give another, so that nothing is lost"


def refuse_replacing(option: str, out: Path, inputs: Iterable[str | Path], records: Iterable[Record] = ()) -> None:
    """Refuse an output that is or contains an input, or an image or mask of it, or that belongs to an input folder.

    A folder may hold a record file that is read, such as `out/split.jsonl`, if its name is not one of an output. The
    paths in the records are absolute; the `UsageProblem` names the option by which the output was given.
    """
    target = out.resolve()
    for path in [Path(given) for given in inputs if given != "-"]:
        source = path.resolve()
        files_read = [file.resolve() for file in record_files(source)] if source.is_dir() else [source]
        is_beside = source.is_file() and source.parent == target and not source.name.startswith("records")
        is_part = target.is_file() and target.suffix not in RECORD_SUFFIXES and target.is_relative_to(source)
        if target in files_read or is_part or (source.is_relative_to(target) and not is_beside):
            raise UsageProblem(f"{option} {out}: holds the input {path}; {_NEXT}")
    files = (record.get(key) for record in records for key in ("path", "mask"))
    for folder in sorted({os.path.dirname(file) for file in files if isinstance(file, str)}):
        if Path(folder).resolve().is_relative_to(target):
            raise UsageProblem(f"{option} {out}: holds the input {folder}; {_NEXT}")
