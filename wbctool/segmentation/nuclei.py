"""Nuclei: where they are in a field of view, and their exact border inside a cell."""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.colour import stain_chroma
from wbctool.imaging.label_image import Region
from wbctool.segmentation.regions import components, depth_of, disk, fill_holes, tidy, union_of
from wbctool.segmentation.thresholds import otsu, otsu_level

STAINED = 0.5  # red + green − blue absorbance that only stained chromatin and granules reach
GREEN = 0.7  # weight of green in the light that separates a nucleus from its cell; the rest is red
BLUR = 0.02  # in radii of the cell
# A cell's rim, which is often dark, does not count for the threshold of its nucleus, and an opening removes what is
# thin; both in radii of the cell. Where dark cytoplasm lies next to the nucleus, more of each.
RIM, OPENING = (0.1, 0.2), (0.06, 0.12)
SEPARATION = 0.68  # fraction of the variance between nucleus and cytoplasm where they are well separated
FRAGMENT = 0.05  # a component smaller than this fraction of the largest is not a lobe
# A white cell is large, and its nucleus dense and even; a giant platelet is small and granular.
DENSE, EVEN, WHITE = 0.33, 1.2, 3.7


def stained(small: np.ndarray, background: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Find nuclei, and whatever else takes their stain: Otsu on saturation × (1 − green), both of the transmittance."""
    light = np.minimum(small.astype(np.float32) / background, 1.0)
    highest = light.max(axis=2)
    saturation = (highest - light.min(axis=2)) / np.maximum(highest, 0.05)
    return tidy(otsu(saturation * (1 - light[..., 1])) & (stain_chroma(density) > STAINED).astype(np.uint8))


def is_nucleus(density: np.ndarray, region: Region, size: float) -> bool:
    """Whether a stained region is a nucleus, and not a large platelet; `size` of its cell is in areas of a red cell."""
    chroma = stain_chroma(density[region.window])
    peak = float(np.percentile(chroma[region.mask > 0], 90))
    inner = cv2.erode(
        cv2.copyMakeBorder(region.mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0),
        disk(max(1, round(0.2 * np.sqrt(region.area / np.pi)))),
    )[1:-1, 1:-1]
    if not inner.any() or peak <= 0:
        return False
    slope = np.hypot(cv2.Sobel(chroma, cv2.CV_32F, 1, 0), cv2.Sobel(chroma, cv2.CV_32F, 0, 1)) / 8
    granularity = float(slope[inner > 0].mean()) / peak
    return bool(np.log(max(size, 1e-3)) + DENSE * np.log(peak) - EVEN * np.log(max(granularity, 1e-6)) > WHITE)


def nucleus_in(image: np.ndarray, background: np.ndarray, cell: Region, stained_region: Region) -> Region:
    """Find a cell's nucleus: Otsu on the red and green transmittance inside; the stained region if it is empty."""
    radius = float(np.sqrt(cell.area / np.pi))
    light = np.minimum(image[cell.window].astype(np.float32) / background, 1.1)
    # compressed, as the darkest chromatin would otherwise move the threshold into the nucleus
    light = (GREEN * light[..., 1] + (1 - GREEN) * light[..., 0]) ** 0.75
    levels = cv2.GaussianBlur((light * 200).astype(np.uint8), (0, 0), max(0.3, BLUR * radius))
    depth = depth_of(cell.mask)
    for rim, opening in zip(RIM, OPENING, strict=True):
        core = (depth > rim * radius).astype(np.uint8)
        level, separation = otsu_level(cv2.calcHist([levels], [0], core, [256], [0, 256]).ravel())
        dark = ((levels <= level) & (cell.mask > 0)).astype(np.uint8)
        dark = fill_holes(cv2.morphologyEx(dark, cv2.MORPH_OPEN, disk(max(1, round(opening * radius)))))
        if separation >= SEPARATION:
            break
    lobes = components(dark)
    if not lobes:
        return stained_region
    least = FRAGMENT * max(lobe.area for lobe in lobes)
    nucleus = union_of([lobe for lobe in lobes if lobe.area >= least])
    return Region(cell.x + nucleus.x, cell.y + nucleus.y, nucleus.mask)
