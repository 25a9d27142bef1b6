"""Binary masks: thresholds, morphology, and components gathered into cells. OpenCV only, for speed."""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.label_image import Region

LARGE_LOBE = 1.25  # a lobe is seldom larger than so many red cells


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


def otsu_level(counts: np.ndarray) -> tuple[int, float]:
    """Otsu's threshold of a histogram; half a per cent of the pixels at either end do not count.

    Args:
        counts: pixels of each level, shape (levels,).

    Returns:
        The last level of the lower class, and the share of the variance that lies between the classes.
    """
    rank = np.cumsum(counts, dtype=np.float64)
    if rank[-1] == 0:
        return 0, 0.0
    low, high = np.searchsorted(rank, [0.005 * rank[-1], 0.995 * rank[-1]])
    values = np.clip(np.arange(len(counts), dtype=np.float64), low, high)
    weight = rank / rank[-1]
    mean = np.cumsum(counts * values) / rank[-1]
    variance = float((counts * (values - mean[-1]) ** 2).sum() / rank[-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean[-1] * weight - mean) ** 2 / (weight * (1 - weight))
    between = np.where(np.isfinite(between), between, -1)
    level = int(between.argmax())
    return level, float(between[level]) / variance if variance > 0 else 0.0


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


def components(mask: np.ndarray, min_area: float = 1, connectivity: int = 8) -> list[Region]:
    """The connected components of at least `min_area` pixels, in raster order."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity)
    found = []
    for index in np.flatnonzero(stats[1:count, cv2.CC_STAT_AREA] >= min_area) + 1:
        x, y, width, height = (int(v) for v in stats[index, :4])
        own = labels[y : y + height, x : x + width] == index
        found.append(Region(x, y, own.astype(np.uint8)))
    return found


def union_of(regions: list[Region]) -> Region:
    """All pixels of some regions."""
    left, top = min(r.x for r in regions), min(r.y for r in regions)
    right = max(r.x + r.mask.shape[1] for r in regions)
    bottom = max(r.y + r.mask.shape[0] for r in regions)
    mask = np.zeros((bottom - top, right - left), np.uint8)
    for r in regions:
        mask[r.y - top : r.y - top + r.mask.shape[0], r.x - left : r.x - left + r.mask.shape[1]] |= r.mask
    return Region(left, top, mask)


def hull_of(region: Region) -> Region:
    """The filled convex hull of a region."""
    filled = np.zeros_like(region.mask)
    points = cv2.findNonZero(region.mask)
    if points is not None:
        cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return Region(region.x, region.y, filled)


def gather_lobes(
    mask: np.ndarray,
    min_area: float,
    filled: np.ndarray | None = None,
    red_area: float = np.inf,
    reach: tuple[float, float, float] = (0.8, 1.6, 0.2),
) -> list[Region]:
    """Components that belong to one nucleus, gathered: lobes lie closer than a share of their size.

    Two components are lobes of one nucleus when the gap between them is at most `reach[0]` times the
    smaller of their radii (of a disk of equal area), so that a platelet nearby is none; or at most
    `reach[1]` times it where less than 15 % of what lies between them is empty slide. Two that are
    both larger than a red cell are two nuclei, but for a gap of at most `reach[2]` times it.

    Args:
        mask: nuclei, uint8.
        min_area: smaller components are dropped, pixels.
        filled: all that absorbs, uint8; without it the first reach alone holds.
        red_area: of a red cell, pixels.
        reach: the three shares.

    Returns:
        One region per nucleus, in raster order of their first lobe.
    """
    lobes = components(mask, min_area)
    radii = [float(np.sqrt(lobe.area / np.pi)) for lobe in lobes]
    outlines = [_outline(lobe) for lobe in lobes]
    parent = list(range(len(lobes)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for first in range(len(lobes) - 1):
        for second in range(first + 1, len(lobes)):
            small = min(radii[first], radii[second])
            if _box_gap(lobes[first], lobes[second]) > reach[1] * small:
                continue
            apart = outlines[first][:, None] - outlines[second][None]
            gap = float(np.sqrt((apart**2).sum(axis=-1).min())) / small
            if np.pi * small**2 > LARGE_LOBE * red_area:
                near = gap <= reach[2]
            else:
                near = gap <= reach[0] or (
                    filled is not None and gap <= reach[1] and _bridged([lobes[first], lobes[second]], filled)
                )
            if near:
                a, b = sorted((root(first), root(second)))
                parent[b] = a
    gathered: dict[int, list[Region]] = {}
    for index, lobe in enumerate(lobes):
        gathered.setdefault(root(index), []).append(lobe)
    return [union_of(gathered[key]) for key in sorted(gathered)]


def _box_gap(a: Region, b: Region) -> float:
    across = max(a.x, b.x) - min(a.x + a.mask.shape[1], b.x + b.mask.shape[1])
    down = max(a.y, b.y) - min(a.y + a.mask.shape[0], b.y + b.mask.shape[0])
    return float(np.hypot(max(0, across), max(0, down)))


def _bridged(lobes: list[Region], filled: np.ndarray) -> bool:
    """Whether hardly any empty slide lies between lobes."""
    both = union_of(lobes)
    between = hull_of(both).mask & (1 - both.mask)
    return cv2.countNonZero(between & filled[both.window]) > 0.85 * cv2.countNonZero(between)


def _outline(region: Region) -> np.ndarray:
    contours, _ = cv2.findContours(region.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate(contours)[:, 0, :] + [region.x, region.y]
    return points[:: max(1, len(points) // 100)].astype(np.float32)
