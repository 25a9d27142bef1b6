"""The default method: nuclei by their stain, cell borders by a shortest path around each.

1. Absorbance is measured against the empty slide, so lamp and white balance cancel out;
   on a copy of down to half the size, which is enough for all but the nucleus' border.
2. Nuclei are where saturation × (1 − green) exceeds Otsu's threshold; lobes that lie near each other,
   with no empty slide between, are gathered.
3. Around each nucleus the cell's border is a closed shortest path (`border.py`).
4. Inside the cell, at full size, Otsu on red and green gives the nucleus (`nuclei.py`).
5. What is small and granular is a platelet; the rest of what absorbs is red cells (`red_cells.py`).

How well it agrees with experts is printed by `tests/benchmarks/masks.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from wbctool.imaging.colour import background_colour, optical_density, stain_chroma
from wbctool.imaging.label_image import Objects, Region
from wbctool.segmentation.border import RedCells, hue, outline_of
from wbctool.segmentation.nuclei import STAINED, has_nucleus, refined, stained
from wbctool.segmentation.red_cells import red_cells, single_area, without_pallor
from wbctool.segmentation.regions import components, disk, fill_holes, gather_lobes, hull_of
from wbctool.segmentation.thresholds import Splitting

CONSTANTS: dict[str, Any] = {}  # one set for all images

WORKING = 180  # side of the working copy, pixels; but never less than half of the image's
EMPTY = 0.12  # absorbance under which the slide is empty
AWAY = (0.9, 2.0)  # what is farther than so many radii from every nucleus is no cytoplasm, at least and for sure
LONE = 3  # a body of less than so many areas of the nuclei in it is a white cell alone
AMPLE = 0.03  # share of the image that teaches the colour of red cells
SPECK = 0.25  # under this share of a red cell's area, what is stained is no nucleus
RED_SHARE = 0.025  # a red cell's share of a field in which none can be measured
CUT = 1.7  # what the image's edge cuts was so many times as large, as a rule
DOUBLE = 1.25  # times the usual absorbance from which two red cells lie over each other
PALE = 2.0  # times a red cell's chroma that even a pale platelet has
MIN_AREA = 13  # least area of a stained object, pixels of the working copy


@dataclass(frozen=True)
class Field:
    """What is measured of an image before anything is told apart, on its working copy.

    Attributes:
        scale: of the working copy, 0.5 to 1.
        background: RGB of the empty slide, 0 to 255.
        density: absorbance, shape (height, width, 3).
        filled: all that absorbs, uint8.
        dark: what takes the nuclear stain, uint8.
        red_area: of a single red cell, pixels; None where none can be measured.
    """

    scale: float
    background: np.ndarray
    density: np.ndarray
    filled: np.ndarray
    dark: np.ndarray
    red_area: float | None

    @classmethod
    def of(cls, image: np.ndarray) -> Field:
        """Measure an RGB image, uint8."""
        scale = min(1.0, max(0.5, WORKING / max(image.shape[:2])))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        small = cv2.GaussianBlur(small, (0, 0), 1.0)
        background = background_colour(small)
        density = optical_density(small, background)
        filled = (np.abs(density).max(axis=2) > EMPTY).astype(np.uint8)
        dark = stained(small, background, density)
        return cls(scale, background, density, filled, dark, single_area(filled, dark))

    @property
    def unit(self) -> float:
        """Area of a red cell, or what it may be where none can be measured; pixels of the working copy."""
        return self.red_area or RED_SHARE * self.dark.size


def segment(image: np.ndarray, split: Splitting | None = None) -> Objects:
    """White cells with nuclei, platelets and red cells of an RGB image (height, width, 3), uint8.

    Touching cells are always parted, white by the nearest nucleus and red by their distance transform;
    `split` makes no difference.
    """
    shape = image.shape[:2]
    field = Field.of(image)
    scale, density, filled, dark = field.scale, field.density, field.filled, field.dark
    red_area, unit = field.red_area, field.unit
    found = gather_lobes(dark, MIN_AREA, filled, red_area or np.inf)

    seeds = [seed for seed in found if seed.area >= SPECK * unit]
    hulls = [hull_of(seed) for seed in seeds]
    nearest, away = _territories(hulls, filled.shape)
    red = _red_colours(density, filled, dark, away)
    taken = np.zeros_like(filled)
    cells, platelets = [], []
    for index, (seed, hull) in enumerate(zip(seeds, hulls, strict=True), start=1):
        outline = outline_of(density, hull, nearest, index, red)
        mask = Region.inside(outline, filled.shape)
        taken[mask.window] |= mask.mask
        whole = Region.inside((outline + 0.5) / scale - 0.5, shape)
        size = mask.area / unit * (CUT if mask.touches_edge(filled.shape) else 1.0)
        if has_nucleus(density, seed, size):
            cells.append((whole, refined(image, field.background, whole, seed.scaled(scale, shape))))
        else:
            platelets.append(whole)

    specks = [speck for speck in found if speck.area < SPECK * unit]
    for speck in specks + _pale_specks(field, red, taken):
        if not (speck.mask & taken[speck.window]).any():
            mask = _platelet(speck, filled)
            taken[mask.window] |= mask.mask
            platelets.append(mask.scaled(scale, shape))
    rest = without_pallor(filled) & (1 - cv2.dilate(taken, disk(1)))
    reds, ridges = red_cells(rest, red_area) if red_area else ([], np.zeros_like(rest))
    reds = _marked(reds, density, taken)
    ridges = cv2.resize(ridges, shape[::-1], interpolation=cv2.INTER_NEAREST)
    return Objects(cells, platelets, [region.scaled(scale, shape) for region in reds], ridges)


def _territories(hulls: list[Region], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The number (from 1) of the hull nearest to each pixel, and how far it is, in its radii."""
    drawn = np.zeros(shape, np.int32)
    for number, hull in enumerate(hulls, start=1):
        drawn[hull.window][hull.mask > 0] = number
    if not hulls:
        return drawn, np.full(shape, np.inf, np.float32)
    free = (drawn == 0).astype(np.uint8)
    distance, place = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    owner = np.zeros(int(place.max()) + 1, np.int32)
    owner[place[free == 0]] = drawn[free == 0]
    nearest = owner[place]
    radii = np.array([1.0] + [np.sqrt(hull.area / np.pi) for hull in hulls], np.float32)
    return nearest, distance / radii[nearest]


def _red_colours(density: np.ndarray, filled: np.ndarray, dark: np.ndarray, away: np.ndarray) -> RedCells | None:
    """Colours of what lies farthest from all nuclei; None where too little does.

    A body that is hardly larger than the nucleus in it is one white cell, and teaches nothing of red ones.
    """
    _, bodies = cv2.connectedComponents(filled, connectivity=4)
    sizes = np.bincount(bodies.ravel())
    stained = np.bincount(bodies[away == 0], minlength=len(sizes))
    lone = (stained > 0) & (sizes < LONE * stained)
    others = (filled > 0) & (dark == 0) & ~lone[bodies]
    reach = away[others]
    enough = int(AMPLE * filled.size)
    if len(reach) <= enough:
        return None
    limit = min(np.partition(reach, -enough)[-enough], AWAY[1])
    return RedCells.of(density[others & (away >= limit)]) if limit >= AWAY[0] else None


def _marked(reds: list[Region], density: np.ndarray, taken: np.ndarray) -> list[Region]:
    """Red cells, also marked as overlapped when they touch a white cell or platelet, or are much denser
    within than is usual."""
    hiding = cv2.dilate(taken, disk(3))  # what touches may lie under
    densest = [np.percentile(density[cell.window][cell.mask > 0].sum(axis=-1), 95) for cell in reds]
    limit = DOUBLE * float(np.median(densest)) if densest else 0.0
    return [
        replace(cell, overlapped=True) if dense > limit or (cell.mask & hiding[cell.window]).any() else cell
        for cell, dense in zip(reds, densest, strict=True)
    ]


def _pale_specks(field: Field, red: RedCells | None, taken: np.ndarray) -> list[Region]:
    """Platelets that a dark nucleus in the same field outshines: stained, and of no red cell's hue."""
    if red is None:
        return []
    chroma, usual = stain_chroma(field.density), float(stain_chroma(red.density.centre))
    mask = (chroma > max(STAINED, PALE * usual)) & (red.hue.distance(hue(field.density)) > 9)
    near: np.ndarray = cv2.dilate(taken, disk(3))
    small = components(cv2.morphologyEx(mask.astype(np.uint8) & (1 - near), cv2.MORPH_OPEN, disk(1)), MIN_AREA)
    return [region for region in small if region.area < SPECK * field.unit]


def _platelet(core: Region, filled: np.ndarray) -> Region:
    """A small platelet: its granules and the paler rim about them."""
    reach = max(1, round(0.5 * np.sqrt(core.area / np.pi)))
    top, left = max(0, core.y - reach), max(0, core.x - reach)
    rows = slice(top, core.y + core.mask.shape[0] + reach)
    columns = slice(left, core.x + core.mask.shape[1] + reach)
    near = filled[rows, columns]
    own = np.zeros_like(near)
    own[core.y - top :, core.x - left :][: core.mask.shape[0], : core.mask.shape[1]] = core.mask
    return Region(left, top, fill_holes((cv2.dilate(own, disk(reach)) & near) | own))
