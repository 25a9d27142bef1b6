"""Cells and nuclei at the size of the image, drawn from a network's maps."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from wbctool.imaging.label_image import Region
from wbctool.segmentation.maps import Maps
from wbctool.segmentation.regions import fill_holes

FRAGMENT = 0.05  # a piece smaller than this fraction of the largest is no lobe


class Borders:
    """Outlines at full size of the cells of one kind.

    Args:
        maps: of the network.
        kind: of `Maps.kinds`.
        labels: label map of the cells, of the maps' size.
        occupied: where there are cells of any kind, bool, of the maps' size.
        shape: height and width of the image.
    """

    def __init__(self, maps: Maps, kind: int, labels: np.ndarray, occupied: np.ndarray, shape: tuple[int, int]) -> None:
        self._maps, self._labels, self._occupied, self._shape = maps, labels, occupied, shape
        self._margin, self._probability = maps.margin(kind), maps.kinds[kind]
        self._windows = _windows(labels)

    def regions(self) -> list[Region]:
        """All cells, holes filled."""
        regions = (self._region(number, *window) for number, window in enumerate(self._windows, start=1))
        return [region for region in regions if region is not None]

    def _region(self, number: int, left: int, top: int, right: int, bottom: int) -> Region | None:
        """The cell of a label, from its window in the maps; None where nothing is left of it."""
        rows, columns = slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2)
        labels, margin = self._labels[rows, columns], self._margin[rows, columns]
        inside, other = labels == number, (labels > 0) & (labels != number)
        grown = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        margin = np.where(grown & ~other, margin, np.where(other, -np.abs(margin) - 0.5, np.minimum(margin, -1.0)))
        across, down = self._maps.scale
        x, y = max(0, int((left - 1.5) / across)), max(0, int((top - 1.5) / down))
        shape = (
            min(self._shape[0], int((bottom + 1.5) / down) + 1) - y,
            min(self._shape[1], int((right + 1.5) / across) + 1) - x,
        )
        odds = enlarged(self._maps, margin.astype(np.float32), (x, y), shape, (columns.start, rows.start))
        mask = fill_holes(_largest((odds > 0).astype(np.uint8)))
        if not mask.any():
            return None
        quality = expected_dice(inside, np.where(other, 0, self._probability[rows, columns]))
        tight = Region.from_mask(mask)
        touching = bool((grown & ~inside & self._occupied[rows, columns]).any())
        return Region(x + tight.x, y + tight.y, tight.mask, touching, quality)


def _windows(labels: np.ndarray) -> list[list[int]]:
    """Left, top, right and bottom of each label, the last two not included."""
    rows, columns = np.nonzero(labels)
    values = labels[rows, columns] - 1
    low = np.full((2, int(labels.max())), labels.size)
    high = np.zeros_like(low)
    for index, positions in enumerate((columns, rows)):
        np.minimum.at(low[index], values, positions)
        np.maximum.at(high[index], values, positions + 1)
    return np.concatenate([low, high]).T.tolist()


def enlarged(
    maps: Maps, values: np.ndarray, start: tuple[int, int], shape: tuple[int, ...], origin: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Interpolate a map at the pixels of a window of the image.

    Args:
        maps: gives the scale.
        values: the map, or a part of it, float32.
        start: column and row of the window's first pixel.
        shape: its height and width.
        origin: column and row of the part's first pixel in the map.
    """
    across, down = maps.scale
    x, y = (start[0] + 0.5) * across - 0.5 - origin[0], (start[1] + 0.5) * down - 0.5 - origin[1]
    matrix = np.array([[across, 0, x], [0, down, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(values, matrix, (shape[1], shape[0]), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count <= 2:
        return mask
    return (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)


def nucleus_of(maps: Maps, whole: Region) -> Region:
    """The nucleus of a cell, of one or more lobes; all of the cell where no nucleus is seen."""
    odds = enlarged(maps, maps.nucleus, (whole.x, whole.y), whole.mask.shape)
    mask = _lobes(((odds > 0) & (whole.mask > 0)).astype(np.uint8))
    if not mask.any():
        return replace(whole, quality=0.0)
    chance = 1 / (1 + np.exp(-odds[whole.mask > 0]))
    return Region(whole.x, whole.y, mask, quality=expected_dice(mask[whole.mask > 0], chance))


def _lobes(mask: np.ndarray) -> np.ndarray:
    """The pieces of a nucleus, holes filled, without fragments."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(fill_holes(mask), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0
    return (areas >= max(1, FRAGMENT * areas.max()))[labels].astype(np.uint8) if count > 1 else mask


def expected_dice(mask: np.ndarray, chance: np.ndarray) -> float:
    """The expected Dice coefficient of a mask, where each pixel belongs to the object with its probability."""
    total = float(mask.sum() + chance.sum())
    return float(2 * chance[mask > 0].sum() / total) if total else 0.0
