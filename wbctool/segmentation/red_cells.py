"""Red cells: their usual area, and each of them, touching ones split."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from wbctool.imaging.label_image import Region
from wbctool.segmentation.regions import components, depth_of, disk, fill_holes

MIN_RADIUS = 4.0  # of a red cell that can be recognised, pixels of the working copy
PALLOR = 400  # area of the largest central pallor, pixels of the working copy
FIELD = 0.12  # fraction of the image that a red cell takes at most
SOLID = 0.93  # fraction of its convex hull that a single red cell fills at least
MANY = 5  # areas of a red cell that a nucleus has at most


def single_area(filled: np.ndarray, dark: np.ndarray) -> float | None:
    """Estimate the area of a red cell, the median of those that touch nothing; None where too little is visible.

    The widths of all regions limit which areas are plausible; where fewer than three red cells touch nothing, the
    widths count for the estimate as well. Masks are of all that absorbs light and of what takes the nuclear stain.
    """
    single = _areas_of_single_cells(filled, dark)
    depth = _depth(without_pallor(filled), 1.5)
    widest = (depth >= cv2.dilate(depth, disk(7))) & (depth > MIN_RADIUS) & (cv2.dilate(dark, disk(5)) == 0)
    disks = np.sort(np.pi * depth[widest] ** 2)
    if len(disks) > 2:
        # weighted by area, so that debris does not count; red cells are wider than the disk within
        wide = 1.25 * float(disks[np.searchsorted(np.cumsum(disks), 0.35 * disks.sum())])
        single = [area for area in single if 0.4 * wide < area < 2.5 * wide]
        area = float(np.sqrt(np.median(single or [wide]) * wide)) if len(single) < 3 else float(np.median(single))
    elif single:
        area = float(np.median(single))
    else:
        return None
    # a nucleus is never many times as large as a red cell, and no field of view so small: that was debris, or haze
    _, _, stats, _ = cv2.connectedComponentsWithStats(dark)
    largest = stats[1:, cv2.CC_STAT_AREA].max(initial=0)
    plausible = len(single) > 2 or largest < MANY * area
    return area if plausible and area < FIELD * dark.size else None


def without_pallor(filled: np.ndarray) -> np.ndarray:
    """Fill the small holes of a mask: the central pallor of red cells."""
    holes = fill_holes(filled) & (1 - filled)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(holes, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < PALLOR
    small[0] = False
    return filled | small[labels].astype(np.uint8)


def _areas_of_single_cells(filled: np.ndarray, dark: np.ndarray) -> list[float]:
    """Areas of the regions that are convex, not elongated, unstained and inside the image."""
    areas = []
    contours, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    height, width = filled.shape
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        area = cv2.contourArea(contour)
        inside = x > 0 and y > 0 and x + w < width and y + h < height
        if not inside or area < np.pi * MIN_RADIUS**2 or area < 0.95 * cv2.contourArea(cv2.convexHull(contour)):
            continue
        sides = cv2.minAreaRect(contour)[1]
        if max(sides) > 1.5 * min(sides):
            continue
        mask = np.zeros((h, w), np.uint8)
        cv2.drawContours(mask, [contour], 0, 1, -1, offset=(-x, -y))
        if np.count_nonzero(mask & dark[y : y + h, x : x + w]) < 0.05 * area:
            areas.append(area)
    return areas


def _depth(mask: np.ndarray, blur: float) -> np.ndarray:
    """Distance to the nearest pixel outside the mask, smoothed; cells cut by the image's edge go on beyond it."""
    return cv2.GaussianBlur(depth_of(mask, cv2.BORDER_REPLICATE), (0, 0), blur)


def red_cells(mask: np.ndarray, red_area: float) -> tuple[list[Region], np.ndarray]:
    """Find red cells in a mask of all that absorbs light and is nothing else; touching ones are split.

    A cell that touches another, or has not the shape and size of a single one, is marked as overlapped. Also returned
    are the ridges along which cells were split, uint8.
    """
    radius = float(np.sqrt(red_area / np.pi))
    opened: np.ndarray = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disk(max(1, round(0.2 * radius))))
    depth = _depth(opened, max(1.0, 0.1 * radius))
    peaks = (depth >= cv2.dilate(depth, disk(max(1, round(0.45 * radius))))) & (depth > 0.4 * radius) & (opened > 0)
    seeds = np.zeros_like(opened)
    for y, x in np.argwhere(peaks):
        cv2.circle(seeds, (int(x), int(y)), max(1, int(0.5 * depth[y, x])), 1, -1)
    if not seeds.any():
        return [], seeds
    # a pixel belongs to the cell whose core is nearest; where two meet is a ridge
    _, basin = cv2.distanceTransformWithLabels(1 - seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    ridge = np.zeros_like(opened)
    ridge[:, :-1] |= basin[:, 1:] != basin[:, :-1]
    ridge[:-1] |= basin[1:] != basin[:-1]
    ridge &= opened
    beside = cv2.dilate(ridge, np.ones((3, 3), np.uint8))
    regions = components(opened & (1 - ridge), 0.25 * red_area, connectivity=4)
    overlapped = [(cell.mask & beside[cell.window]).any() or not _is_single(cell, red_area) for cell in regions]
    cells = [replace(cell, overlapped=bool(mark)) for cell, mark in zip(regions, overlapped, strict=True)]
    return cells, ridge


def _is_single(region: Region, red_area: float) -> bool:
    """Whether a region has the size and shape of one red cell."""
    contours, _ = cv2.findContours(region.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    area = cv2.contourArea(contours[0])
    sides = cv2.minAreaRect(contours[0])[1]
    convex = area > SOLID * cv2.contourArea(cv2.convexHull(contours[0]))
    return 0.5 * red_area < area < 1.4 * red_area and max(sides) < 1.5 * min(sides) and convex
