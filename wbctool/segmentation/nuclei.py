"""Nuclei: where they are in a field, and their exact border inside a cell."""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.colour import stain_chroma
from wbctool.imaging.label_image import Region
from wbctool.segmentation.regions import components, disk, fill_holes, otsu, otsu_level, tidy, union_of

STAINED = 0.5  # red + green − blue absorbance that only stained chromatin and granules reach
GREEN = 0.7  # weight of green in the light that tells a nucleus from its cell; the rest is red
BLUR = 0.02  # in radii of the cell
# A cell's rim, which is often dark, does not decide its nucleus' threshold, and an opening takes away
# what is thin; both in radii of the cell. Where dark cytoplasm lies next to the nucleus, more of each.
RIM, OPENING = (0.1, 0.2), (0.06, 0.12)
APART = 0.68  # share of the variance that lies between nucleus and cytoplasm where they are well apart
FRAGMENT = 0.05  # a piece smaller than this share of the largest is no lobe
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
    return tidy(otsu(saturation * (1 - light[..., 1])) & (stain_chroma(density) > STAINED).astype(np.uint8))


def has_nucleus(density: np.ndarray, seed: Region, size: float) -> bool:
    """Whether a stained body is a nucleus, and not a large platelet.

    Args:
        density: absorbance.
        seed: the body.
        size: area of its cell, in areas of a red cell.
    """
    chroma = stain_chroma(density[seed.window])
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
    """The nucleus of a cell: Otsu on the red and green transmittance inside the cell.

    Args:
        image: RGB, uint8.
        background: RGB of the empty slide.
        whole: the cell.
        seed: its nucleus as far as known.

    Returns:
        The nucleus, within the cell.
    """
    radius = float(np.sqrt(whole.area / np.pi))
    light = np.minimum(image[whole.window].astype(np.float32) / background, 1.1)
    # compressed, as the darkest chromatin would else draw the threshold into the nucleus
    light = (GREEN * light[..., 1] + (1 - GREEN) * light[..., 0]) ** 0.75
    levels = cv2.GaussianBlur((light * 200).astype(np.uint8), (0, 0), max(0.3, BLUR * radius))
    framed = cv2.copyMakeBorder(whole.mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    for rim, opening in zip(RIM, OPENING, strict=True):
        core = (depth > rim * radius).astype(np.uint8)
        level, apart = otsu_level(cv2.calcHist([levels], [0], core, [256], [0, 256]).ravel())
        dark = ((levels <= level) & (whole.mask > 0)).astype(np.uint8)
        dark = fill_holes(cv2.morphologyEx(dark, cv2.MORPH_OPEN, disk(max(1, round(opening * radius)))))
        if apart >= APART:
            break
    lobes = components(dark)
    if not lobes:
        return seed
    least = FRAGMENT * max(lobe.area for lobe in lobes)
    nucleus = union_of([lobe for lobe in lobes if lobe.area >= least])
    return Region(whole.x + nucleus.x, whole.y + nucleus.y, nucleus.mask)
