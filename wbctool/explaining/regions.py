"""Where nucleus and cell lie in the square a network sees, from the mask that a record carries."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from wbctool.errors import ImageError
from wbctool.imaging.files import read_labels
from wbctool.records import Record


def regions_of(record: Record, shape: tuple[int, int], size: int) -> dict[str, np.ndarray] | None:
    """How much of each pixel of the network's input lies in each region.

    Of a cropped cell that cell counts, of a whole field every white cell in it. The cell includes its
    nucleus; background is all else.

    Args:
        record: with `mask`, and `value` of a cell or `cells` of a field; without a mask there are no regions.
        shape: height and width of its image.
        size: side of the network's input.

    Returns:
        `nucleus` (where one is known), `cell` and `background`, each (size, size), float32, 0 to 1.

    Raises:
        ImageError: the mask is missing, damaged, or of another size than its image, or lacks the cell.
    """
    if not isinstance(record.get("mask"), str):
        return None
    labels = read_labels(record["mask"], (shape[1], shape[0]))
    cells = _cells(record)
    nuclei = [cell["nucleus"]["value"] for cell in cells if cell.get("nucleus")]
    nucleus = _cover(np.isin(labels, nuclei), size)
    cell = _cover(np.isin(labels, [*(cell["value"] for cell in cells), *nuclei]), size)
    if not cell.any():
        if "value" in record:
            raise ImageError(
                f"{record['mask']}: has no value {record['value']}, the cell of its record; run `wbctool crop` again"
            )
        return None
    found = {"nucleus": nucleus} if nucleus.any() else {}
    return {**found, "cell": cell, "background": 1 - cell}


def _cells(record: Record) -> list[dict[str, Any]]:
    if "value" in record:
        return [{"value": record["value"], "nucleus": record.get("nucleus")}]
    return [cell for cell in record.get("cells") or [] if cell.get("kind") == "wbc"]


def _cover(region: np.ndarray, size: int) -> np.ndarray:
    way = cv2.INTER_AREA if min(region.shape) >= size else cv2.INTER_LINEAR
    return cv2.resize(region.astype(np.float32), (size, size), interpolation=way)
