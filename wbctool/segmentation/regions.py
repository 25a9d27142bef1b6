"""Binary masks: thresholds, morphology, and components gathered into cells. OpenCV only, for speed."""

from __future__ import annotations

import cv2
import numpy as np


def disk(radius: int) -> np.ndarray:
    """A round structuring element of 2·radius + 1 pixels."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def otsu(measure: np.ndarray) -> np.ndarray:
    """Pixels above Otsu's threshold of a measure; its outermost thousandths do not count.

    Args:
        measure: shape (height, width), any scale.

    Returns:
        uint8, 0 or 1; all 0 where the measure is constant.
    """
    low, high = np.percentile(measure, [0.1, 99.9])
    if high - low < 1e-6:
        return np.zeros(measure.shape, np.uint8)
    levels = np.clip((measure - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    return (levels > threshold).astype(np.uint8)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """The mask with all holes filled; uint8, 0 or 1."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(padded, None, (0, 0), 2)
    return (padded[1:-1, 1:-1] != 2).astype(np.uint8)


def tidy(mask: np.ndarray, radius: int = 1) -> np.ndarray:
    """Opening, closing and hole filling, with a disk of the given radius."""
    element = disk(radius)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, element)
    return fill_holes(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, element))


def components(mask: np.ndarray, min_area: float = 1) -> list[np.ndarray]:
    """The 8-connected components of at least `min_area` pixels, each a uint8 mask, in raster order."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    kept = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= min_area]
    return [(labels == i).astype(np.uint8) for i in kept]


def hull_of(mask: np.ndarray) -> np.ndarray:
    """The filled convex hull of a mask."""
    filled = np.zeros_like(mask)
    points = cv2.findNonZero(mask)
    if points is not None:
        cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled


def gather_lobes(mask: np.ndarray, min_area: float, reach: float = 0.8) -> list[np.ndarray]:
    """Components that belong to one nucleus, gathered: lobes lie closer than a share of their size.

    Two components are lobes of one nucleus when the gap between them is at most `reach` times the
    smaller of their radii (of a disk of equal area), so that a platelet nearby is none.

    Args:
        mask: nuclei, uint8.
        min_area: smaller components are dropped, pixels.
        reach: the share.

    Returns:
        One mask per nucleus, in raster order of their first lobe.
    """
    lobes = components(mask, min_area)
    if len(lobes) < 2:
        return lobes
    radii = [float(np.sqrt(lobe.sum() / np.pi)) for lobe in lobes]
    outlines = [_outline(lobe) for lobe in lobes]
    parent = list(range(len(lobes)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for first in range(len(lobes)):
        away = cv2.distanceTransform(1 - lobes[first], cv2.DIST_L2, 5)
        for second in range(first + 1, len(lobes)):
            gap = away[outlines[second][:, 1], outlines[second][:, 0]].min()
            if gap <= reach * min(radii[first], radii[second]):
                a, b = sorted((root(first), root(second)))
                parent[b] = a
    gathered: dict[int, np.ndarray] = {}
    for index, lobe in enumerate(lobes):
        key = root(index)
        gathered[key] = gathered[key] | lobe if key in gathered else lobe
    return [gathered[key] for key in sorted(gathered)]


def _outline(mask: np.ndarray) -> np.ndarray:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.concatenate(contours)[:, 0, :]
