"""Regions of an image, the objects a segmentation method finds, and the label image they are drawn into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from wbctool.errors import ImageError


@dataclass(frozen=True)
class Region:
    """A set of pixels, kept as a mask of its bounding window: a thousand cells do not take a thousand images."""

    x: int  # column of the window's first pixel
    y: int  # row of it
    mask: np.ndarray  # of the window, uint8, 0 or 1
    overlapped: bool = False  # touches or covers another object, so that its outline is uncertain
    quality: float | None = None  # expected Dice with an expert's mask, 0 to 1, where the method knows it

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> Region:
        """Return the region of a mask of the whole image, uint8, 0 or 1."""
        x, y, width, height = cv2.boundingRect(mask)
        return cls(x, y, mask[y : y + height, x : x + width])

    @classmethod
    def from_outline(cls, outline: np.ndarray, shape: tuple[int, int]) -> Region:
        """Return the region within an outline (n, 2) of x, y; pixels outside the image are cut off."""
        low = np.clip(np.floor(outline.min(axis=0)), 0, [shape[1] - 1, shape[0] - 1]).astype(int)
        high = np.clip(np.ceil(outline.max(axis=0)) + 1, low + 1, [shape[1], shape[0]]).astype(int)
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillPoly(mask, [np.round((outline - low) * 16).astype(np.int32)], 1, shift=4)
        return cls(int(low[0]), int(low[1]), mask)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the region lies in."""
        height, width = self.mask.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(cv2.countNonZero(self.mask))

    def touches_edge(self, shape: tuple[int, int]) -> bool:
        """Whether the window reaches the edge of an image of this (height, width)."""
        height, width = self.mask.shape
        return self.x == 0 or self.y == 0 or self.x + width == shape[1] or self.y + height == shape[0]

    def to_mask(self, shape: tuple[int, int]) -> np.ndarray:
        """Return a mask of the whole image of this (height, width), uint8, 0 or 1."""
        return self.in_window(0, 0, shape)

    def in_window(self, x: int, y: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return a mask of a window of the image, uint8; pixels outside the window are cut off."""
        mask = np.zeros(shape, np.uint8)
        top, left = self.y - y, self.x - x
        height, width = self.mask.shape
        common = mask[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
        common[:] = self.mask[max(0, -top) :, max(0, -left) :][: common.shape[0], : common.shape[1]]
        return mask

    def scaled(self, scale: float, shape: tuple[int, int]) -> Region:
        """Return the region in the image, of this shape, of which this one is in a copy of `scale`, over 0 to 1.

        Its edge is interpolated bilinearly and cut at a half.
        """
        if scale == 1:
            return self
        height, width = self.mask.shape
        left, top = max(0, int((self.x - 1) / scale)), max(0, int((self.y - 1) / scale))
        right = min(shape[1], int((self.x + width + 1) / scale) + 1)
        bottom = min(shape[0], int((self.y + height + 1) / scale) + 1)
        # the centre of the first pixel of the result, in the small window
        x0, y0 = (left + 0.5) * scale - 0.5 - self.x, (top + 0.5) * scale - 0.5 - self.y
        small = cv2.copyMakeBorder(self.mask * np.uint8(255), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        inner = (
            self.x > 0,
            self.y > 0,
            (self.x + width + 1) / scale < shape[1],
            (self.y + height + 1) / scale < shape[0],
        )
        for is_inner, edge in zip(inner, (small[:, 0], small[0], small[:, -1], small[-1]), strict=True):
            if is_inner:
                edge[:] = 0
        matrix = np.array([[scale, 0, x0 + 1], [0, scale, y0 + 1]], np.float32)
        size, flags = (right - left, bottom - top), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        large = cv2.warpAffine(small, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return Region(left, top, (large > 127).astype(np.uint8), self.overlapped, self.quality)


@dataclass
class Objects:
    """The objects that a method finds in an image."""

    cells: list[tuple[Region, Region]] = field(default_factory=list)  # white: the whole cell, and the nucleus within
    platelets: list[Region] = field(default_factory=list)
    red_cells: list[Region] = field(default_factory=list)  # or what of them is visible
    ridges: np.ndarray | None = None  # where touching objects were split, uint8, of the image's shape


def to_labels(objects: Objects, shape: tuple[int, int]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Draw objects into one label image, uint8, or uint16 above 255 values, and describe each for `cells` in records.

    Where objects overlap, white cells cover platelets, and these red cells. Values go up in that order, from 1; a white
    cell takes two, the second for its nucleus. `ImageError` where 16 bits cannot number all objects.
    """
    count = 2 * len(objects.cells) + len(objects.platelets) + len(objects.red_cells)
    if count > 65535:
        raise ImageError(f"{count:,} objects found, more than a label image holds; cut it into tiles first")
    labels = np.zeros(shape, np.uint16 if count > 255 else np.uint8)
    cells: list[dict[str, Any]] = []
    value = 1
    for whole, nucleus in objects.cells:
        visible = _draw(labels, whole, value)
        nucleus_mask = nucleus.in_window(whole.x, whole.y, visible.shape) & visible
        labels[whole.window][nucleus_mask > 0] = value + 1
        if entry := cell_entry(visible, whole, value, "wbc", shape):
            if "quality" in entry and nucleus.quality is not None:
                entry["quality"] = min(entry["quality"], round(nucleus.quality, 3))
            cells.append({**entry, "nucleus": {"value": value + 1, "area": int(cv2.countNonZero(nucleus_mask))}})
        value += 2
    for kind, regions in (("platelet", objects.platelets), ("rbc", objects.red_cells)):
        for region in regions:
            visible = _draw(labels, region, value)
            if entry := cell_entry(visible, region, value, kind, shape):
                if kind == "rbc":
                    covered = cv2.countNonZero(visible) < region.area
                    entry["whole"] = not (entry["edge"] or region.overlapped or covered)
                cells.append(entry)
            value += 1
    return labels, cells


def _draw(labels: np.ndarray, region: Region, value: int) -> np.ndarray:
    """Draw a region where the label image is empty; return the mask of the pixels drawn, in its window."""
    window = labels[region.window]
    visible = region.mask & (window == 0).astype(np.uint8)
    window[visible > 0] = value
    return visible


def cell_entry(visible: np.ndarray, region: Region, value: int, kind: str, shape: tuple[int, int]) -> dict[str, Any]:
    """Return the entry of a cell in `cells`, from a mask of its visible pixels in its window; empty if none is."""
    moments = cv2.moments(visible, binaryImage=True)
    area = int(moments["m00"])
    if area == 0:
        return {}
    x, y, width, height = cv2.boundingRect(visible)
    drawn = Region(region.x + x, region.y + y, visible[y : y + height, x : x + width])
    quality = {} if region.quality is None else {"quality": round(region.quality, 3)}
    return {
        "value": value,
        "kind": kind,
        "bbox": [drawn.x, drawn.y, width, height],
        "area": area,
        "centroid": [round(region.x + moments["m10"] / area, 1), round(region.y + moments["m01"] / area, 1)],
        "edge": drawn.touches_edge(shape),
        **quality,
    }
