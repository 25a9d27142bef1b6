"""Red cells: their usual size, and each of them, those that touch cut apart."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from wbctool.imaging.label_image import Region
from wbctool.segmentation.regions import components, disk, fill_holes

LEAST = 4.0  # radius of the smallest red cell that can be told, pixels of the working copy
PALLOR = 400  # largest pale middle of a red cell, in the same
FIELD = 0.12  # share of the image that a red cell takes at most
SOLID = 0.93  # share of its convex hull that a single red cell fills at least
MANY = 5  # red cells that a nucleus can at most be as large as


def single_area(filled: np.ndarray, dark: np.ndarray) -> float | None:
    """Area of a single red cell, pixels: the median of those that lie alone.

    What "alone" can mean is told by how wide the bodies are; where fewer than three lie alone, the
    widths have their say as well.

    Args:
        filled: all that absorbs, uint8.
        dark: what takes the nuclear stain, uint8.

    Returns:
        None where too little is seen that could be red cells.
    """
    alone = _areas_alone(filled, dark)
    depth = _depth(without_pallor(filled), 1.5)
    widest = (depth >= cv2.dilate(depth, disk(7))) & (depth > LEAST) & (cv2.dilate(dark, disk(5)) == 0)
    disks = np.sort(np.pi * depth[widest] ** 2)
    if len(disks) > 2:
        # by area, so that debris does not count; red cells are wider than the disk within
        wide = 1.25 * float(disks[np.searchsorted(np.cumsum(disks), 0.35 * disks.sum())])
        alone = [area for area in alone if 0.4 * wide < area < 2.5 * wide]
        area = float(np.sqrt(np.median(alone or [wide]) * wide)) if len(alone) < 3 else float(np.median(alone))
    elif alone:
        area = float(np.median(alone))
    else:
        return None
    # a nucleus is never many times as large as a red cell, and no field so small: that was debris, or haze
    _, _, stats, _ = cv2.connectedComponentsWithStats(dark)
    largest = stats[1:, cv2.CC_STAT_AREA].max(initial=0)
    believed = len(alone) > 2 or largest < MANY * area
    return area if believed and area < FIELD * dark.size else None


def without_pallor(filled: np.ndarray) -> np.ndarray:
    """The mask with its small holes filled: the pale middles of red cells."""
    holes = fill_holes(filled) & (1 - filled)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(holes, connectivity=4)
    pale = stats[:, cv2.CC_STAT_AREA] < PALLOR
    pale[0] = False
    return filled | pale[labels].astype(np.uint8) if count > 1 else filled


def _areas_alone(filled: np.ndarray, dark: np.ndarray) -> list[float]:
    """Areas of what is convex, not long, unstained and inside the image."""
    areas = []
    contours, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    height, width = filled.shape
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        area = cv2.contourArea(contour)
        inside = x > 0 and y > 0 and x + w < width and y + h < height
        if not inside or area < np.pi * LEAST**2 or area < 0.95 * cv2.contourArea(cv2.convexHull(contour)):
            continue
        sides = cv2.minAreaRect(contour)[1]
        if max(sides) > 1.5 * min(sides):
            continue
        own = np.zeros((h, w), np.uint8)
        cv2.drawContours(own, [contour], 0, 1, -1, offset=(-x, -y))
        if np.count_nonzero(own & dark[y : y + h, x : x + w]) < 0.05 * area:
            areas.append(area)
    return areas


def _depth(mask: np.ndarray, blur: float) -> np.ndarray:
    """Distance to the nearest empty pixel, smoothed; the image's edge is no end of what it cuts."""
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    return cv2.GaussianBlur(cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1], (0, 0), blur)


def red_cells(mask: np.ndarray, red_area: float) -> tuple[list[Region], np.ndarray]:
    """Red cells in a mask of all that absorbs and is nothing else; those that touch cut apart.

    A cell that touches another, or has not a single cell's shape and size, is marked as overlapped.

    Args:
        mask: uint8.
        red_area: of one red cell, pixels.

    Returns:
        The cells, and the ridges along which they were cut, uint8.
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
    # a pixel goes to the cell whose core is nearest; where two meet is a ridge
    _, basin = cv2.distanceTransformWithLabels(1 - seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    ridge = np.zeros_like(opened)
    ridge[:, :-1] |= basin[:, 1:] != basin[:, :-1]
    ridge[:-1] |= basin[1:] != basin[:-1]
    ridge &= opened
    found = []
    beside = cv2.dilate(ridge, np.ones((3, 3), np.uint8))
    for cell in components(opened & (1 - ridge), 0.25 * red_area, connectivity=4):
        contours, _ = cv2.findContours(cell.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        area = cv2.contourArea(contours[0])
        sides = cv2.minAreaRect(contours[0])[1]
        single = 0.5 * red_area < area < 1.4 * red_area and max(sides) < 1.5 * min(sides)
        convex = area > SOLID * cv2.contourArea(cv2.convexHull(contours[0]))
        touched = cv2.countNonZero(cell.mask & beside[cell.window]) > 0
        found.append(replace(cell, overlapped=touched or not (single and convex)))
    return found, ridge
