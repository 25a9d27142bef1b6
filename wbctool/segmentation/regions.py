"""Binary masks: morphology, connected components, and lobes grouped into nuclei. OpenCV only, for speed."""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.label_image import Region

LARGE_LOBE = 1.25  # a lobe is seldom larger than this many red cells
# Largest gap between lobes of one nucleus, in radii of the smaller lobe (of a disk of equal area): in general; where no
# background lies between them; and of two lobes that are both large.
GAP, BRIDGED_GAP, LARGE_GAP = 0.8, 1.6, 0.2


def disk(radius: int) -> np.ndarray:
    """Return a round structuring element of 2·radius + 1 pixels."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill all holes of a mask, uint8, 0 or 1."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(padded, None, (0, 0), 2)
    return (padded[1:-1, 1:-1] != 2).astype(np.uint8)


def tidy(mask: np.ndarray, radius: int = 1) -> np.ndarray:
    """Open, close and fill a mask, with a disk of the given radius."""
    element = disk(radius)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, element)
    return fill_holes(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, element))


def depth_of(mask: np.ndarray, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """Return the depth of pixels in a mask: distances to its outside. BORDER_REPLICATE goes on beyond the image."""
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, border, value=0)
    return cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]


def components(mask: np.ndarray, min_area: float = 1, connectivity: int = 8) -> list[Region]:
    """Return the connected components of at least `min_area` pixels, in raster order."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity)
    regions = []
    for index in np.flatnonzero(stats[1:count, cv2.CC_STAT_AREA] >= min_area) + 1:
        x, y, width, height = (int(v) for v in stats[index, :4])
        inside = labels[y : y + height, x : x + width] == index
        regions.append(Region(x, y, inside.astype(np.uint8)))
    return regions


def union_of(regions: list[Region]) -> Region:
    """Return all pixels of some regions."""
    left, top = min(r.x for r in regions), min(r.y for r in regions)
    right = max(r.x + r.mask.shape[1] for r in regions)
    bottom = max(r.y + r.mask.shape[0] for r in regions)
    masks = [r.in_window(left, top, (bottom - top, right - left)) for r in regions]
    return Region(left, top, np.bitwise_or.reduce(masks))


def hull_of(region: Region) -> Region:
    """Return the filled convex hull of a region."""
    filled = np.zeros_like(region.mask)
    points = cv2.findNonZero(region.mask)
    if points is not None:
        cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return Region(region.x, region.y, filled)


def gather_lobes(
    mask: np.ndarray, min_area: float, filled: np.ndarray | None = None, red_area: float = np.inf
) -> list[Region]:
    """Group the components of a mask into nuclei, in raster order, as the lobes of one nucleus lie near each other.

    Two components are lobes of one nucleus if the gap between them is at most `GAP` times the smaller of their radii,
    so that a platelet nearby is not one; or at most `BRIDGED_GAP` times it where less than 15 % of what lies between
    them is background, of which the mask `filled` of all that absorbs light tells. Two that are both larger than a red
    cell are two nuclei, unless the gap is at most `LARGE_GAP` times it.
    """
    lobes = components(mask, min_area)
    radii = [float(np.sqrt(lobe.area / np.pi)) for lobe in lobes]
    outlines = [_outline(lobe) for lobe in lobes]
    nucleus_of = np.arange(len(lobes))
    for first in range(len(lobes) - 1):
        for second in range(first + 1, len(lobes)):
            radius = min(radii[first], radii[second])
            if _box_gap(lobes[first], lobes[second]) > BRIDGED_GAP * radius:
                continue
            offsets = outlines[first][:, None] - outlines[second][None]
            gap = float(np.sqrt((offsets**2).sum(axis=-1).min())) / radius
            if np.pi * radius**2 > LARGE_LOBE * red_area:
                joined = gap <= LARGE_GAP
            else:
                joined = gap <= GAP or (
                    filled is not None and gap <= BRIDGED_GAP and _bridged([lobes[first], lobes[second]], filled)
                )
            if joined:
                low, high = sorted((nucleus_of[first], nucleus_of[second]))
                nucleus_of[nucleus_of == high] = low
    groups = [[lobes[index] for index in np.flatnonzero(nucleus_of == number)] for number in np.unique(nucleus_of)]
    return [union_of(group) for group in groups]


def _box_gap(a: Region, b: Region) -> float:
    across = max(a.x, b.x) - min(a.x + a.mask.shape[1], b.x + b.mask.shape[1])
    down = max(a.y, b.y) - min(a.y + a.mask.shape[0], b.y + b.mask.shape[0])
    return float(np.hypot(max(0, across), max(0, down)))


def _bridged(lobes: list[Region], filled: np.ndarray) -> bool:
    """Whether hardly any background lies between lobes."""
    union = union_of(lobes)
    between = hull_of(union).mask & (1 - union.mask)
    return cv2.countNonZero(between & filled[union.window]) > 0.85 * cv2.countNonZero(between)


def _outline(region: Region) -> np.ndarray:
    contours, _ = cv2.findContours(region.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate(contours)[:, 0, :] + [region.x, region.y]
    return points[:: max(1, len(points) // 100)].astype(np.float32)
