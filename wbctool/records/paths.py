"""Paths and groups in records: which keys hold paths, what an image came from, how it was prepared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from wbctool.records.schemas import CELL, IMAGE, MASK, Record

_MADE_BY = [("source", "crop"), ("original", "enhance"), ("panel", "explain"), ("maps", "explain")]  # path keys


def path_keys(record: Record) -> list[str]:
    """The keys of a record that hold paths, some of them only where a step set them."""
    keys = ["path", "mask", *(key for key, step in _MADE_BY if step in record)]
    return [key for key in keys if isinstance(record.get(key), str)]


def source_of(record: Record) -> str:
    """The path of the original image: of a cell its source, else the image itself."""
    return record["source"] if "source" in path_keys(record) else record["path"]


def with_absolute_paths(record: Record, base: Path | str) -> Record:
    """The record with its path keys resolved against `base` (relative ones only)."""
    base = str(base)
    changed = {key: os.path.normpath(os.path.join(base, record[key])) for key in path_keys(record)}
    return {**record, **changed}


def with_relative_paths(record: Record, base: Path | str) -> Record:
    """The record with its path keys written relative to `base`, a path without links."""
    return {**record, **{key: os.path.relpath(record[key], base) for key in path_keys(record)}}


def has_image(record: Record) -> bool:
    """Whether a model can look at this record: an image, a field with its mask, or a cell.

    A field in which `crop` found no cell keeps its mask record, with an empty `cells`; it has
    nothing to classify.
    """
    if record["schema"] == MASK:
        return not ("crop" in record and not record["cells"])
    return record["schema"] in (IMAGE, CELL)


def preparation_of(record: Record) -> dict[str, Any]:
    """What was done to an image before a model sees it: enhancement, segmentation, crop."""
    parts = {"enhance": record.get("enhance"), "crop": record.get("crop")}
    if parts["crop"]:
        parts["segment"] = {"method": record.get("method"), **(record.get("constants") or {})}
    return {key: value for key, value in parts.items() if value}


def group_of(record: Record) -> str:
    """The group of a record: the one given, else its source image."""
    return record.get("group") or source_of(record)
