"""Nuclei: where they are in a field, and their exact border inside a cell."""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.segmentation.objects import Region
from wbctool.segmentation.regions import disk, fill_holes, otsu, otsu_level, tidy

STAINED = 0.5  # red + green − blue absorbance that only stained chromatin and granules reach
RIM = 0.15  # a cell's rim, which is often dark, does not decide its nucleus' threshold; in radii of the cell
OPENING = 0.06  # radius of the opening, in radii of the cell
BLUR = 0.02  # in the same
# A white cell is large, and its nucleus dense and even; a giant platelet is small and granular.
DENSE, EVEN, WHITE = 0.33, 1.2, 3.7


def stained(small: np.ndarray, background: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Nuclei, and whatever else takes their stain: Otsu on saturation × (1 − green), both of the transmittance.

    Args:
        small: RGB, uint8.
        background: RGB of the empty slide.
        density: absorbance of `small`.

    Returns:
        uint8, 0 or 1.
    """
    light = np.minimum(small.astype(np.float32) / background, 1.0)
    highest = light.max(axis=2)
    saturation = (highest - light.min(axis=2)) / np.maximum(highest, 0.05)
    chroma = density[..., 0] + density[..., 1] - density[..., 2]
    return tidy(otsu(saturation * (1 - light[..., 1])) & (chroma > STAINED).astype(np.uint8))


def has_nucleus(density: np.ndarray, seed: Region, size: float) -> bool:
    """Whether a stained body is a nucleus, and not a large platelet.

    Args:
        density: absorbance.
        seed: the body.
        size: area of its cell, in areas of a red cell.
    """
    colours = density[seed.window]
    chroma = np.ascontiguousarray(colours[..., 0] + colours[..., 1] - colours[..., 2])
    dense = float(np.percentile(chroma[seed.mask > 0], 90))
    inner = cv2.erode(
        cv2.copyMakeBorder(seed.mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0),
        disk(max(1, round(0.2 * np.sqrt(seed.area / np.pi)))),
    )[1:-1, 1:-1]
    if not inner.any() or dense <= 0:
        return False
    slope = np.hypot(cv2.Sobel(chroma, cv2.CV_32F, 1, 0), cv2.Sobel(chroma, cv2.CV_32F, 0, 1)) / 8
    grain = float(slope[inner > 0].mean()) / dense
    return bool(np.log(max(size, 1e-3)) + DENSE * np.log(dense) - EVEN * np.log(max(grain, 1e-6)) > WHITE)


def refined(image: np.ndarray, background: np.ndarray, whole: Region, seed: Region) -> Region:
    """The nucleus of a cell: Otsu on the green transmittance inside the cell.

    Args:
        image: RGB, uint8.
        background: RGB of the empty slide.
        whole: the cell.
        seed: its nucleus as far as known.

    Returns:
        The nucleus, within the cell.
    """
    radius = float(np.sqrt(whole.area / np.pi))
    green = np.ascontiguousarray(image[..., 1][whole.window])
    green = cv2.GaussianBlur(green, (0, 0), max(0.3, BLUR * radius))
    framed = cv2.copyMakeBorder(whole.mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    core = (depth > RIM * radius).astype(np.uint8)
    counts = cv2.calcHist([green], [0], core, [256], [0, 256]).ravel()
    # compressed, as the darkest chromatin would else draw the threshold into the nucleus
    values = np.minimum(np.arange(256) / background[1], 1.1) ** 0.75
    level = otsu_level(counts, values)
    dark = ((green <= level) & (whole.mask > 0)).astype(np.uint8)
    dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, disk(max(1, round(OPENING * radius))))
    dark = fill_holes(dark)
    if not dark.any():
        return seed
    return Region(whole.x, whole.y, dark)
