"""COCO annotations of label images, collected record by record."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from wbctool.errors import UsageProblem
from wbctool.imaging.files import read_labels
from wbctool.records import Record
from wbctool.records.storage import atomic
from wbctool.segmentation.regions import fill_holes

CATEGORIES = ("wbc", "nucleus", "rbc", "platelet")


class CocoFile:
    """Collects mask records into one COCO file; annotations wait on disk, not in memory.

    Every cell is an annotation with polygons; a white cell's includes its nucleus, which has an annotation of its own.
    The polygons run along the edges of the pixels, so that they give the mask back; a cell with holes, which polygons
    cannot have, is given as run lengths.
    Each shard writes its own file, with `-i-of-n` in its name. `UsageProblem` where no such file can be written, or it
    would replace something else, such as `records.jsonl` or `run.json` in the output folder.
    """

    def __init__(self, path: Path, out: Path, shard: tuple[int, int] | None = None) -> None:
        advice = "give a name such as masks.json"
        if path.suffix != ".json":
            raise UsageProblem(f"--coco {path}: does not end in .json; {advice}")
        if shard:
            path = path.with_name(f"{path.stem}-{shard[0]}-of-{shard[1]}.json")
        path, out = path.resolve(), out.resolve()
        reserved = path == out or (path.parent == out and path.name.startswith("run"))
        if reserved or (path.exists() and not path.is_file()):
            raise UsageProblem(f"--coco {path}: is something else already; {advice}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageProblem(f"--coco {path}: {error.strerror}; {advice}") from None
        if not os.access(path.parent, os.W_OK):
            raise UsageProblem(f"--coco {path}: its folder cannot be written; give another")
        self._path = path
        self._images, self._annotations = _List(), _List()

    def add(self, record: Record) -> None:
        """Add the cells of a mask record; other records are ignored."""
        if "cells" not in record or not record.get("mask"):
            return
        width, height = record["size"]
        image = {"file_name": record["id"], "width": width, "height": height, "path": record["path"]}
        number = self._images.add(image)
        labels = read_labels(record["mask"], (width, height))
        for cell in record["cells"]:
            values = [cell["value"]]
            if nucleus := cell.get("nucleus"):
                values.append(nucleus["value"])
                self._annotate(number, labels, [nucleus["value"]], "nucleus", cell["bbox"])
            self._annotate(number, labels, values, cell["kind"], cell["bbox"])

    def _annotate(self, image: int, labels: np.ndarray, values: list[int], kind: str, bbox: list[int]) -> None:
        x, y, width, height = (int(side) for side in bbox)
        mask = np.isin(labels[y : y + height, x : x + width], values).astype(np.uint8)
        if not mask.any():
            return
        left, top, width, height = cv2.boundingRect(mask)
        self._annotations.add(
            {
                "image_id": image,
                "category_id": CATEGORIES.index(kind) + 1,
                "iscrowd": 0,
                "area": int(cv2.countNonZero(mask)),
                "bbox": [x + left, y + top, width, height],
                "segmentation": _polygons(mask, x, y) if _is_solid(mask) else _runs(mask, x, y, labels.shape),
            }
        )

    def write(self) -> None:
        """Write the file, whole or not at all."""
        categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
        with atomic(self._path, "w") as stream:
            stream.write('{"info": {"description": "wbctool segment"}, "licenses": [],\n')
            stream.write(f'"categories": {json.dumps(categories)},\n"images": [\n')
            self._images.copy_to(stream)
            stream.write('\n], "annotations": [\n')
            self._annotations.copy_to(stream)
            stream.write("\n]}\n")


class _List:
    """The entries of a JSON list, numbered from 1, in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._count = 0

    def add(self, entry: dict[str, Any]) -> int:
        """Add an entry and return its `id`."""
        self._count += 1
        self._file.write((",\n" if self._count > 1 else "") + json.dumps({"id": self._count, **entry}))
        return self._count

    def copy_to(self, stream: IO[str]) -> None:
        self._file.seek(0)
        shutil.copyfileobj(self._file, stream)


def _is_solid(mask: np.ndarray) -> bool:
    return cv2.countNonZero(mask) == cv2.countNonZero(fill_holes(mask))


def _runs(mask: np.ndarray, x: int, y: int, shape: tuple[int, int]) -> dict[str, Any]:
    """Uncompressed run lengths of the whole image, column by column, the first of background."""
    whole = np.zeros(shape, np.uint8)
    whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    flat = whole.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return {"size": list(shape), "counts": [0, *counts] if flat[0] else counts}


def _polygons(mask: np.ndarray, x: int, y: int) -> list[list[float]]:
    """Outer outlines in image coordinates, along the edges of the pixels."""
    doubled = cv2.resize(mask, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # the index of a doubled pixel gives an edge of its pixel: even ones the first, odd ones the last
    return [
        [float(v) for point in (contour[:, 0, :] + 1) // 2 + [x, y] for v in point]
        for contour in contours
        if len(contour) > 2
    ]
