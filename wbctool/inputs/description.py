"""Describing a run folder, a record file or a folder of images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from wbctool.errors import InputError
from wbctool.inputs.folders import read_inputs
from wbctool.inputs.run_folders import read_info
from wbctool.records import ERROR, IMAGE, SPLITS, group_of
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally

_OF_A_RUN = (
    *("classes", "ensemble", "fused", "parts", "names", "backbone", "backbone_args", "attention", "attention_at"),
    *("size", "parameters", "best_epoch", "preparation", "calibration", "training"),
)


def describe(path: str, selection: Selection | None = None, tally: Tally | None = None) -> dict[str, Any]:
    """Describe a run folder, a record file, a folder of records or images, or `-`, records on stdin.

    Returns its `kind`, and of a run what its `model.json` says (`classes`, `backbone`, `training`, …); of records how
    many there are by schema (`records`), label (`classes`), `splits` and kind of cell (`cells`), and of `groups`. It is
    an `InputError` if the path does not exist, holds nothing, or is a damaged run folder.
    """
    if (Path(path) / "model.json").exists():
        model = read_info(Path(path))
        return {"kind": "run folder", **{key: model[key] for key in _OF_A_RUN if key in model}}
    schemas, labels, splits, cells = (Counter[str]() for _ in range(4))
    groups = set()
    for record in read_inputs([path], selection or Selection(), tally or Tally()):
        schemas[record["schema"]] += 1
        if record["schema"] == ERROR:
            continue
        labels[record.get("label") or "(no label)"] += 1
        splits[record.get("split") or "(none)"] += 1
        cells.update(cell["kind"] for cell in record.get("cells", ()))
        groups.add(group_of(record))
    if not schemas:
        raise InputError(f"{path}: holds no images or records")
    has_splits = any(splits[name] for name in SPLITS)
    return {
        "kind": "images" if set(schemas) == {IMAGE} else "records",
        "records": dict(schemas),
        "classes": dict(sorted(labels.items())),
        "splits": {name: splits[name] for name in (*SPLITS, "(none)") if splits[name]} if has_splits else {},
        "groups": len(groups),
        "cells": dict(cells),
    }
