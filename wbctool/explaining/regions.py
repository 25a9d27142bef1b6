"""Where nucleus and cell lie in a network's input, from the mask of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from wbctool.errors import ImageError
from wbctool.imaging.files import read_labels
from wbctool.records import Record

Regions = Mapping[str, np.ndarray]


def regions_of(record: Record, shape: tuple[int, int], size: int) -> dict[str, np.ndarray] | None:
    """Compute the fraction of each input pixel that lies in each region.

    The cell is that of the record, or every white cell of a whole field. It includes its nucleus; all else is
    background.

    Args:
        record: with `mask`, and `value` of a cell or `cells` of a field.
        shape: height and width of its image.
        size: side of the network's input, pixels.

    Returns:
        `nucleus` (where one is known), `cell` and `background`, each (size, size), float32, 0 to 1; None without a
        mask or a cell.

    Raises:
        ImageError: the mask is missing, damaged, or of another size than its image, or lacks the cell.
    """
    if not isinstance(record.get("mask"), str):
        return None
    labels = read_labels(record["mask"], (shape[1], shape[0]))
    cells = _cells(record)
    nuclei = [cell["nucleus"]["value"] for cell in cells if cell.get("nucleus")]
    nucleus = _coverage(np.isin(labels, nuclei), size)
    cell = _coverage(np.isin(labels, [*(cell["value"] for cell in cells), *nuclei]), size)
    if not cell.any():
        if "value" in record:
            raise ImageError(
                f"{record['mask']}: has no value {record['value']}, the cell of its record; run `wbctool crop` again"
            )
        return None
    return {**({"nucleus": nucleus} if nucleus.any() else {}), "cell": cell, "background": 1 - cell}


def _cells(record: Record) -> list[dict[str, Any]]:
    if "value" in record:
        return [{"value": record["value"], "nucleus": record.get("nucleus")}]
    return [cell for cell in record.get("cells") or [] if cell.get("kind") == "wbc"]


def _coverage(region: np.ndarray, size: int) -> np.ndarray:
    interpolation = cv2.INTER_AREA if min(region.shape) >= size else cv2.INTER_LINEAR
    return cv2.resize(region.astype(np.float32), (size, size), interpolation=interpolation)
