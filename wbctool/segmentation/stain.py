"""Nuclei by their stain, cell borders by a shortest path around each.

1. Absorbance is measured against the background, so lamp and white balance cancel out; on a copy of down to half the
   size, which is enough for all but the nucleus' border.
2. Nuclei are where saturation × (1 − green) exceeds Otsu's threshold; lobes that lie near each other, with no
   background between, are grouped.
3. Around each nucleus the cell's border is a closed shortest path (`shortest_path.py`).
4. Inside the cell, at full size, Otsu on red and green gives the nucleus (`nuclei.py`).
5. What is small and granular is a platelet; the rest of what absorbs light is red cells (`red_cells.py`).

`tests/benchmarks/masks.py` prints the agreement with experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from wbctool.imaging.colour import background_colour, optical_density, stain_chroma
from wbctool.imaging.label_image import Objects, Region
from wbctool.segmentation.nuclei import STAINED, is_nucleus, nucleus_in, stained
from wbctool.segmentation.red_cells import red_cells, single_area, without_pallor
from wbctool.segmentation.regions import components, disk, fill_holes, gather_lobes, hull_of
from wbctool.segmentation.shortest_path import RedCellColours, cell_outline, chromaticity

WORKING = 180  # side of the working copy, pixels; but never less than half of the image's
BACKGROUND = 0.12  # absorbance under which a pixel is background
# In radii of the nearest nucleus: farther pixels are perhaps, and then certainly, no cytoplasm.
FAR, FARTHEST = 0.9, 2.0
LONE = 3  # an isolated region of fewer areas of the nuclei in it is a single white cell
AMPLE = 0.03  # fraction of the image from which the colours of red cells are learnt
PLATELET = 0.25  # fraction of a red cell's area under which a stained region is not a nucleus
RED_CELL = 0.025  # fraction of a field that a red cell takes, where none can be measured
CUT = 1.7  # a cell cut by the image's edge was larger by this factor, as a rule
DOUBLE = 1.25  # factor of the usual absorbance from which two red cells overlap
PALE = 2.0  # factor of a red cell's chroma that even a pale platelet has
MIN_AREA = 13  # of a stained object, pixels of the working copy


@dataclass(frozen=True)
class Field:
    """What is measured of a field of view before objects are found, on its working copy."""

    scale: float  # of the working copy, 0.5 to 1
    background: np.ndarray  # its RGB, 0 to 255
    density: np.ndarray  # absorbance, shape (height, width, 3)
    filled: np.ndarray  # all that absorbs light, uint8
    dark: np.ndarray  # what takes the nuclear stain, uint8
    red_area: float | None  # of a single red cell, pixels; None where none can be measured

    @classmethod
    def of(cls, image: np.ndarray) -> Field:
        """Measure an RGB image, uint8."""
        scale = min(1.0, max(0.5, WORKING / max(image.shape[:2])))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        small = cv2.GaussianBlur(small, (0, 0), 1.0)
        background = background_colour(small)
        density = optical_density(small, background)
        filled = (np.abs(density).max(axis=2) > BACKGROUND).astype(np.uint8)
        dark = stained(small, background, density)
        return cls(scale, background, density, filled, dark, single_area(filled, dark))

    @property
    def unit(self) -> float:
        """Area of a red cell, or its usual one where none can be measured; pixels of the working copy."""
        return self.red_area or RED_CELL * self.dark.size

    def stained_regions(self) -> list[Region]:
        """Nuclei and what takes their stain, lobes grouped."""
        return gather_lobes(self.dark, MIN_AREA, self.filled, self.red_area or np.inf)


def segment(image: np.ndarray) -> Objects:
    """Find white cells with nuclei, split by the nearest nucleus, platelets, and red cells, split by their depth."""
    shape = image.shape[:2]
    field = Field.of(image)
    regions = field.stained_regions()
    large = [region for region in regions if region.area >= PLATELET * field.unit]
    hulls = [hull_of(region) for region in large]
    nearest, distance = _territories(hulls, field.filled.shape)
    red = _red_colours(field, distance)
    taken = np.zeros_like(field.filled)
    objects = Objects()
    for number, (region, hull) in enumerate(zip(large, hulls, strict=True), start=1):
        outline = cell_outline(field.density, hull, nearest, number, red)
        small_cell = Region.from_outline(outline, field.filled.shape)
        taken[small_cell.window] |= small_cell.mask
        cell = Region.from_outline((outline + 0.5) / field.scale - 0.5, shape)
        size = small_cell.area / field.unit * (CUT if small_cell.touches_edge(field.filled.shape) else 1.0)
        if is_nucleus(field.density, region, size):
            stained_region = region.scaled(field.scale, shape)
            objects.cells.append((cell, nucleus_in(image, field.background, cell, stained_region)))
        else:
            objects.platelets.append(cell)
    small = [region for region in regions if region.area < PLATELET * field.unit]
    for core in small + _pale_platelets(field, red, taken):
        if not (core.mask & taken[core.window]).any():
            platelet = _platelet(core, field.filled)
            taken[platelet.window] |= platelet.mask
            objects.platelets.append(platelet.scaled(field.scale, shape))
    rest = without_pallor(field.filled) & (1 - cv2.dilate(taken, disk(1)))
    reds, ridges = red_cells(rest, field.red_area) if field.red_area else ([], np.zeros_like(rest))
    objects.red_cells = [cell.scaled(field.scale, shape) for cell in _mark_overlapped(reds, field.density, taken)]
    objects.ridges = cv2.resize(ridges, shape[::-1], interpolation=cv2.INTER_NEAREST)
    return objects


def _territories(hulls: Sequence[Region], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The number (from 1) of the hull nearest to each pixel, and the distance to it, in its radii."""
    drawn = np.zeros(shape, np.int32)
    for number, hull in enumerate(hulls, start=1):
        drawn[hull.window][hull.mask > 0] = number
    if not hulls:
        return drawn, np.full(shape, np.inf, np.float32)
    free = (drawn == 0).astype(np.uint8)
    distance, labels = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    hull_of_label = np.zeros(int(labels.max()) + 1, np.int32)
    hull_of_label[labels[free == 0]] = drawn[free == 0]
    nearest = hull_of_label[labels]
    radii = np.array([1.0] + [np.sqrt(hull.area / np.pi) for hull in hulls], np.float32)
    return nearest, distance / radii[nearest]


def _red_colours(field: Field, distance: np.ndarray) -> RedCellColours | None:
    """Colours of what lies farthest from all nuclei; None where too little does."""
    # an isolated region that is hardly larger than its nucleus is a white cell, and does not count
    _, labels = cv2.connectedComponents(field.filled, connectivity=4)
    areas = np.bincount(labels.ravel())
    nucleus_areas = np.bincount(labels[distance == 0], minlength=len(areas))
    lone = (nucleus_areas > 0) & (areas < LONE * nucleus_areas)
    others = (field.filled > 0) & (field.dark == 0) & ~lone[labels]
    distances = distance[others]
    enough = int(AMPLE * field.filled.size)
    if len(distances) <= enough:
        return None
    limit = min(np.partition(distances, -enough)[-enough], FARTHEST)
    return RedCellColours.of(field.density[others & (distance >= limit)]) if limit >= FAR else None


def _mark_overlapped(cells: Sequence[Region], density: np.ndarray, taken: np.ndarray) -> list[Region]:
    """Red cells, also marked as overlapped where they touch a white cell or platelet, or are unusually dense."""
    covering = cv2.dilate(taken, disk(3))  # what touches may lie on top
    peaks = [np.percentile(density[cell.window][cell.mask > 0].sum(axis=-1), 95) for cell in cells]
    limit = DOUBLE * float(np.median(peaks)) if peaks else 0.0
    return [
        replace(cell, overlapped=True) if peak > limit or (cell.mask & covering[cell.window]).any() else cell
        for cell, peak in zip(cells, peaks, strict=True)
    ]


def _pale_platelets(field: Field, red: RedCellColours | None, taken: np.ndarray) -> list[Region]:
    """Platelets that are pale beside a dark nucleus: stained, and not of the chromaticity of red cells."""
    if red is None:
        return []
    chroma, usual = stain_chroma(field.density), float(stain_chroma(red.density.centre))
    mask = (chroma > max(STAINED, PALE * usual)) & (red.chromaticity.distance(chromaticity(field.density)) > 9)
    near: np.ndarray = cv2.dilate(taken, disk(3))
    regions = components(cv2.morphologyEx(mask.astype(np.uint8) & (1 - near), cv2.MORPH_OPEN, disk(1)), MIN_AREA)
    return [region for region in regions if region.area < PLATELET * field.unit]


def _platelet(core: Region, filled: np.ndarray) -> Region:
    """A small platelet: its granules and the paler rim about them."""
    reach = max(1, round(0.5 * np.sqrt(core.area / np.pi)))
    top, left = max(0, core.y - reach), max(0, core.x - reach)
    rows = slice(top, core.y + core.mask.shape[0] + reach)
    columns = slice(left, core.x + core.mask.shape[1] + reach)
    near = filled[rows, columns]
    mask = core.in_window(left, top, near.shape)
    return Region(left, top, fill_holes((cv2.dilate(mask, disk(reach)) & near) | mask))
