"""Where nucleus and cell lie in a network's input, how far maps look there, and how far two maps agree."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from wbctool.errors import ImageError
from wbctool.imaging.files import read_labels
from wbctool.records import Record

Regions = Mapping[str, np.ndarray]


def regions_of(record: Record, shape: tuple[int, int], size: int) -> dict[str, np.ndarray] | None:
    """Compute the fraction of each input pixel, (size, size), float32, in `nucleus`, `cell` and `background`.

    `shape` is height and width of the image. The cell is that of the record, or every white cell of a whole field. It
    includes its nucleus, where one is known; all else is background. None without a mask or a cell.
    """
    if not isinstance(record.get("mask"), str):
        return None
    labels = read_labels(record["mask"], (shape[1], shape[0]))
    cells = [cell for cell in record.get("cells") or [] if cell.get("kind") == "wbc"]
    if "value" in record:
        cells = [{"value": record["value"], "nucleus": record.get("nucleus")}]
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


def _coverage(region: np.ndarray, size: int) -> np.ndarray:
    interpolation = cv2.INTER_AREA if min(region.shape) >= size else cv2.INTER_LINEAR
    return cv2.resize(region.astype(np.float32), (size, size), interpolation=interpolation)


def energy(map_: np.ndarray, regions: Regions) -> dict[str, float | None]:
    """Compute the fraction of a map's sum inside each region. By chance it is the fraction of the area.

    Source: the energy-based pointing game of Wang et al. 2020 (Score-CAM), section 4.3, with regions for boxes. No
    value of a map is negative; None for one that is 0 everywhere.
    """
    total = float(map_.sum(dtype=np.float64))
    if total <= 0:
        return dict.fromkeys(regions)
    return {name: float((map_ * region).sum(dtype=np.float64)) / total for name, region in regions.items()}


def pointing(map_: np.ndarray, regions: Regions) -> dict[str, bool | None]:
    """Tell whether most of a map's highest pixel lies in each region; None for a map that is 0 everywhere.

    Source: Zhang et al. 2018, without a tolerance.
    """
    if not map_.any():
        return dict.fromkeys(regions)
    peak = np.unravel_index(int(map_.argmax()), map_.shape)
    return {name: bool(region[peak] >= 0.5) for name, region in regions.items()}


def agreement(one: np.ndarray, other: np.ndarray) -> float | None:
    """Compute Pearson's correlation of the pixels of two maps, -1 to 1; None where one is constant."""
    first, second = (map_.ravel().astype(np.float64) - map_.mean(dtype=np.float64) for map_ in (one, other))
    spread = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / spread if spread > 0 else None


def rounded(value: float | None) -> float | None:
    """Round a value to six digits, as records have it."""
    return None if value is None else float(f"{value:.6g}")
