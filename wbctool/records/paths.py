"""Ids, paths and groups in records: which keys hold paths, what an image came from, how it was prepared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from wbctool.records.schemas import CELL, IMAGE, MASK, Record

_MADE_BY = [("source", "crop"), ("original", "enhance"), ("panel", "explain"), ("maps", "explain")]  # path keys


def cell_id(image_id: str, value: int) -> str:
    """Return the id of a cell: the id of its image, `#`, and the cell's value in the label image."""
    return f"{image_id}#{value}"


def image_id_of(record: Record) -> str:
    """Return the id of the image that a record comes from: of a cropped cell that of its field, else its own.

    File names may contain `#` themselves, so only the ending that `cell_id` has added is cut off.
    """
    record_id: str = record["id"]
    return record_id.removesuffix(cell_id("", record["value"])) if "value" in record else record_id


def path_keys(record: Record) -> list[str]:
    """Return the keys of a record that hold paths, some of them only where a step set them."""
    keys = ["path", "mask", *(key for key, step in _MADE_BY if step in record)]
    return [key for key in keys if isinstance(record.get(key), str)]


def source_of(record: Record) -> str:
    """Return the path of the original image: of a cell its source, else the image itself."""
    return record["source"] if "source" in path_keys(record) else record["path"]


def with_absolute_paths(record: Record, base: Path | str) -> Record:
    """Return the record with its relative paths resolved against `base`."""
    base = str(base)
    changed = {key: os.path.normpath(os.path.join(base, record[key])) for key in path_keys(record)}
    return {**record, **changed}


def with_relative_paths(record: Record, base: Path | str) -> Record:
    """Return the record with its paths written relative to `base`, a path without links."""
    return {**record, **{key: os.path.relpath(record[key], base) for key in path_keys(record)}}


def has_image(record: Record) -> bool:
    """Return whether a model can classify this record: an image, a field with its mask, or a cell.

    A field in which `crop` found no cell keeps its mask record, with an empty `cells`; it has
    nothing to classify.
    """
    if record["schema"] == MASK:
        return not ("crop" in record and not record["cells"])
    return record["schema"] in (IMAGE, CELL)


def preparation_of(record: Record) -> dict[str, Any]:
    """Return how an image was prepared for a model: enhancement, segmentation, crop."""
    steps = {"enhance": record.get("enhance"), "crop": record.get("crop")}
    if steps["crop"]:
        steps["segment"] = {"method": record.get("method"), **(record.get("constants") or {})}
    return {key: value for key, value in steps.items() if value}


def group_of(record: Record) -> str:
    """Return the group of a record: its `group` key, else its source image."""
    return record.get("group") or source_of(record)
