"""COCO annotations of label images, written as records come by."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wbctool.errors import UsageProblem
from wbctool.imaging.files import read_labels
from wbctool.outputs import atomic
from wbctool.records import Record

CATEGORIES = ("wbc", "nucleus", "rbc", "platelet")


class CocoFile:
    """Gathers mask records into one COCO file; annotations wait on disk, not in memory.

    Every cell is an annotation with polygons; a white cell's includes its nucleus, which has an
    annotation of its own. The polygons run along the pixels' edges, so that they give the mask back.
    """

    def __init__(self, path: Path) -> None:
        """Raises UsageProblem when the file could not be written in the end."""
        if path.is_dir() or (path.parent.exists() and not path.parent.is_dir()):
            raise UsageProblem(f"--coco {path}: is no file that can be written; give a name such as masks.json")
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
            "segmentation": _polygons(mask, x, y),
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
