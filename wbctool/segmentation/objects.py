"""From masks of single objects to one label image and its list of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from wbctool.errors import ImageError


@dataclass
class Objects:
    """What a method found; every mask has the image's shape, uint8, 0 or 1.

    Attributes:
        cells: white cells, each its whole cell and its nucleus within.
        platelets: platelets.
        red_cells: red cells, or what of them can be seen.
    """

    cells: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    platelets: list[np.ndarray] = field(default_factory=list)
    red_cells: list[np.ndarray] = field(default_factory=list)


def to_labels(objects: Objects, shape: tuple[int, int]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Draw objects into one label image and describe each.

    Where objects overlap, white cells win over platelets and these over red cells. Values go up in
    that order, from 1; a white cell takes two, the second for its nucleus.

    Args:
        objects: what was found.
        shape: (height, width) of the image.

    Returns:
        The label image, uint8, or uint16 above 255 values; and the `cells` of the mask record.

    Raises:
        ImageError: more objects than 16 bits can tell apart.
    """
    count = 2 * len(objects.cells) + len(objects.platelets) + len(objects.red_cells)
    if count > 65535:
        raise ImageError(f"{count:,} objects found, more than a label image holds; cut it into tiles first")
    labels = np.zeros(shape, np.uint16 if count > 255 else np.uint8)
    cells: list[dict[str, Any]] = []
    value = 1
    for whole, nucleus in objects.cells:
        free = (whole > 0) & (labels == 0)
        labels[free] = value
        labels[free & (nucleus > 0)] = value + 1
        _describe(cells, free, value, "wbc", free & (nucleus > 0))
        value += 2
    for kind, masks in (("platelet", objects.platelets), ("rbc", objects.red_cells)):
        for mask in masks:
            free = (mask > 0) & (labels == 0)
            labels[free] = value
            _describe(cells, free, value, kind)
            value += 1
    return labels, cells


def _describe(
    cells: list[dict[str, Any]], mask: np.ndarray, value: int, kind: str, nucleus: np.ndarray | None = None
) -> None:
    moments = cv2.moments(mask.view(np.uint8), binaryImage=True)
    area = int(moments["m00"])
    if area == 0:  # wholly covered by others
        return
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    cell: dict[str, Any] = {
        "value": value,
        "kind": kind,
        "bbox": [x, y, width, height],
        "area": area,
        "centroid": [round(moments["m10"] / area, 1), round(moments["m01"] / area, 1)],
        "edge": bool(x == 0 or y == 0 or x + width == mask.shape[1] or y + height == mask.shape[0]),
    }
    if nucleus is not None:
        cell["nucleus"] = {"value": value + 1, "area": int(np.count_nonzero(nucleus))}
    cells.append(cell)
