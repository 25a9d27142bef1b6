"""Which cells are cropped, by which window, and the crop itself."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from wbctool.errors import ImageError
from wbctool.records import Record

Window = tuple[int, int, int, int]

METHODS = ("roi", "box")
WHICH = ("central", "largest", "all")
KIND_CHOICES = ("wbc", "platelet", "rbc", "any")
EDGE = ("keep", "drop")
DENOISE = ("nlm",)
DEFAULT_MARGIN = {"roi": 0.3, "box": 0.0}


def choose_cells(record: Record, kind: str | None, which: str, edge: str = "keep") -> list[dict[str, Any]]:
    """The cells of a mask record that are to be cropped, in its order.

    Args:
        record: a mask record.
        kind: `wbc`, `platelet`, `rbc`, `any`; None takes white cells, or platelets where there are none.
        which: `central` (nearest the image's centre), `largest`, or `all`.
        edge: `keep` or `drop` cells that the image's edge cuts.

    Raises:
        ImageError: the record has no mask.
    """
    if "cells" not in record or not record.get("mask") or "size" not in record:
        raise ImageError(f"{record['id']}: has no mask; run `wbctool segment` on it first")
    cells = [cell for cell in record["cells"] if edge == "keep" or not cell.get("edge")]
    if kind is None:
        found = [c for c in cells if c["kind"] == "wbc"] or [c for c in cells if c["kind"] == "platelet"]
    else:
        found = [c for c in cells if kind in ("any", c["kind"])]
    if which == "all" or len(found) < 2:
        return found
    if which == "largest":
        return [max(found, key=lambda cell: cell["area"])]
    width, height = record["size"]
    return [min(found, key=lambda c: np.hypot(c["centroid"][0] - width / 2, c["centroid"][1] - height / 2))]


def roi_window(mask: np.ndarray, margin: float) -> Window:
    """The square about a cell: centre by moments, half side its farthest pixel × (1 + margin).

    Source: the attentive-CNN paper, section 2.2, whose margin is 0.3.

    Args:
        mask: the cell, shape (height, width), bool.
        margin: share added to the radius.

    Returns:
        x, y, width, height in pixels of the image; may reach outside it.
    """
    rows, columns = np.nonzero(mask)
    centre_y, centre_x = rows.mean(), columns.mean()
    radius = np.hypot(rows - centre_y, columns - centre_x).max() + 0.5
    half = max(1, int(np.ceil(radius * (1 + margin))))
    return round(centre_x) - half, round(centre_y) - half, 2 * half + 1, 2 * half + 1


def box_window(bbox: list[float], margin: float) -> Window:
    """The bounding box of a cell, widened on each side by a share of its size."""
    x, y, width, height = bbox
    dx, dy = round(width * margin), round(height * margin)
    return int(x) - dx, int(y) - dy, int(width) + 2 * dx, int(height) + 2 * dy


def cut(image: np.ndarray, window: Window, size: int, labels: bool = False) -> np.ndarray:
    """Cut a window and scale it to size × size pixels.

    Images are padded by reflection and resampled by area (shrinking) or bilinearly; label images
    are padded with background and take the nearest pixel.
    """
    x, y, width, height = window
    rows, columns = image.shape[:2]
    top, left = max(0, -y), max(0, -x)
    bottom, right = max(0, y + height - rows), max(0, x + width - columns)
    if top or left or bottom or right:
        border = cv2.BORDER_CONSTANT if labels else cv2.BORDER_REFLECT_101
        image = cv2.copyMakeBorder(image, top, bottom, left, right, border, value=0)
    part = image[y + top : y + top + height, x + left : x + left + width]
    if labels:
        return cv2.resize(part, (size, size), interpolation=cv2.INTER_NEAREST)
    shrinking = width >= size and height >= size
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
