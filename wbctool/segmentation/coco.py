"""COCO annotations of label images, written as records come by."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wbctool.errors import UsageProblem
from wbctool.imaging.files import read_labels
from wbctool.records import Record
from wbctool.records.storage import atomic
from wbctool.segmentation.regions import fill_holes

CATEGORIES = ("wbc", "nucleus", "rbc", "platelet")


class CocoFile:
    """Gathers mask records into one COCO file; annotations wait on disk, not in memory.

    Every cell is an annotation with polygons; a white cell's includes its nucleus, which has an
    annotation of its own. The polygons run along the pixels' edges, so that they give the mask back;
    what has holes, which polygons cannot have, is given as run lengths.
    """

    def __init__(self, path: Path, out: Path, shard: tuple[int, int] | None = None) -> None:
        """Where the file will be; found out before any work.

        Args:
            path: its name, ending in .json; links are followed.
            out: the output folder of the command, whose own files it must not be.
            shard: each shard writes a file of its own, with `-i-of-n` in its name.

        Raises:
            UsageProblem: no such file can be written, or it would replace something else.
        """
        advice = "give a name such as masks.json"
        if path.suffix != ".json":
            raise UsageProblem(f"--coco {path}: does not end in .json; {advice}")
        if shard:
            path = path.with_name(f"{path.stem}-{shard[0]}-of-{shard[1]}.json")
        path = path.resolve()
        own = path == out.resolve() or (path.parent == out.resolve() and path.name.startswith("run"))
        if own or (path.exists() and not path.is_file()):
            raise UsageProblem(f"--coco {path}: is something else already; {advice}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageProblem(f"--coco {path}: {error.strerror}; {advice}") from None
        if not os.access(path.parent, os.W_OK):
            raise UsageProblem(f"--coco {path}: its folder cannot be written; give another")
        self.path = path
        self.images = 0
        self.annotations = 0
        self._pictures = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._cells = tempfile.TemporaryFile("w+", encoding="utf-8")

    def add(self, record: Record) -> None:
        """Take a mask record; others are passed over."""
        if "cells" not in record or not record.get("mask"):
            return
        self.images += 1
        width, height = record["size"]
        picture = {"id": self.images, "file_name": record["id"], "width": width, "height": height}
        self._pictures.write((",\n" if self.images > 1 else "") + json.dumps({**picture, "path": record["path"]}))
        labels = read_labels(record["mask"], (width, height))
        for cell in record["cells"]:
            values = [cell["value"]]
            if nucleus := cell.get("nucleus"):
                values.append(nucleus["value"])
                self._annotate(labels, [nucleus["value"]], "nucleus", cell["bbox"])
            self._annotate(labels, values, cell["kind"], cell["bbox"])

    def _annotate(self, labels: np.ndarray, values: list[int], kind: str, bbox: list[int]) -> None:
        x, y, width, height = (int(side) for side in bbox)
        mask = np.isin(labels[y : y + height, x : x + width], values).astype(np.uint8)
        if not mask.any():
            return
        left, top, wide, high = cv2.boundingRect(mask)
        self.annotations += 1
        entry: dict[str, Any] = {
            "id": self.annotations,
            "image_id": self.images,
            "category_id": CATEGORIES.index(kind) + 1,
            "iscrowd": 0,
            "area": int(cv2.countNonZero(mask)),
            "bbox": [x + left, y + top, wide, high],
            "segmentation": _polygons(mask, x, y) if _is_solid(mask) else _runs(mask, x, y, labels.shape),
        }
        self._cells.write((",\n" if self.annotations > 1 else "") + json.dumps(entry))

    def write(self) -> None:
        """Write the file, whole or not at all."""
        categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
        with atomic(self.path, "w") as stream:
            stream.write('{"info": {"description": "wbctool segment"}, "licenses": [],\n')
            stream.write(f'"categories": {json.dumps(categories)},\n"images": [\n')
            for name, part in (("images", self._pictures), ("annotations", self._cells)):
                if name == "annotations":
                    stream.write('\n], "annotations": [\n')
                part.seek(0)
                while text := part.read(1 << 20):
                    stream.write(text)
            stream.write("\n]}\n")


def _is_solid(mask: np.ndarray) -> bool:
    return cv2.countNonZero(mask) == cv2.countNonZero(fill_holes(mask))


def _runs(mask: np.ndarray, x: int, y: int, shape: tuple[int, int]) -> dict[str, Any]:
    """Uncompressed run lengths of the whole image, column by column, beginning with background."""
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
    # of a doubled pixel's index, the edge of the pixel it lies in: even ones begin it, odd ones end it
    return [
        [float(v) for point in (contour[:, 0, :] + 1) // 2 + [x, y] for v in point]
        for contour in contours
        if len(contour) > 2
    ]
