"""Otsu's threshold; and from a mask of nuclei to objects, as the published threshold methods share it.

The refinement is that of the EfficientNetV2-S paper, section 4.2.5: erosion, then dilation, each twice, with a disk of
radius 3; objects under 80 pixels dropped; a Gaussian of σ 1 on the mask.
"""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.label_image import Objects, Region
from wbctool.segmentation.method import Refinement, Splitting
from wbctool.segmentation.regions import components, depth_of, disk, gather_lobes


def otsu(measure: np.ndarray) -> np.ndarray:
    """Return the pixels above Otsu's threshold of a measure; its outermost thousandths do not count.

    None are above where the measure is constant.
    """
    low, high = np.percentile(measure, [0.1, 99.9])
    if high - low < 1e-6:
        return np.zeros(measure.shape, np.uint8)
    levels = np.clip((measure - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    return (levels > threshold).astype(np.uint8)


def otsu_level(counts: np.ndarray) -> tuple[int, float]:
    """Compute Otsu's threshold of a histogram: the last level below, and the fraction of variance between the classes.

    Half a per cent of the pixels at either end do not count.
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


def refined_nuclei(mask: np.ndarray, parameters: Refinement) -> Objects:
    """Refine a mask and return its nuclei; see `nuclei_of`."""
    return nuclei_of(refine(mask, parameters), parameters.min_area, parameters)


def refine(mask: np.ndarray, parameters: Refinement) -> np.ndarray:
    """Erode, dilate and smooth a mask, uint8; 0 switches each off."""
    if parameters.radius and parameters.iterations:
        kernel = disk(parameters.radius)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel, iterations=parameters.iterations)
    if parameters.smooth:
        mask = (cv2.GaussianBlur(mask * np.uint8(255), (0, 0), parameters.smooth) > 127).astype(np.uint8)
    return mask


def nuclei_of(mask: np.ndarray, min_area: float, splitting: Splitting) -> Objects:
    """Return the nuclei of a mask as objects: a cell is its nucleus, and lobes near each other are one nucleus."""
    if not splitting.split_touching:
        return Objects(cells=[(nucleus, nucleus) for nucleus in gather_lobes(mask, min_area)])
    nuclei, ridges = split_touching(mask, splitting)
    return Objects(cells=[(nucleus, nucleus) for nucleus in nuclei if nucleus.area >= min_area], ridges=ridges)


def split_touching(mask: np.ndarray, splitting: Splitting) -> tuple[list[Region], np.ndarray]:
    """Split touching objects by a marker watershed on the distance from their border.

    Source: the EfficientNetV2-S paper, section 4.2.7. A marker is a component of what lies deeper than `split_cut`
    times the greatest depth, if its peak lies deeper than `split_peak_share` times that depth and it has
    `split_peak_area` pixels; it is dilated by a disk of `split_marker_radius`. Objects without a marker stay whole. The
    ridges between objects are returned beside them.
    """
    from skimage.segmentation import watershed

    ridges = np.zeros_like(mask)
    if not mask.any():
        return [], ridges
    depth = depth_of(mask)
    markers, count = _markers(mask, depth, splitting)
    labels = watershed(-depth, markers, mask=mask > 0, watershed_line=True)
    masks = [(labels == value).astype(np.uint8) for value in range(1, count + 1)]
    regions = [Region.from_mask(one) for one in masks if one.any()]
    # a ridge has two objects beside it; other pixels without a label belong to objects without a marker
    unlabelled = mask & (labels == 0)
    beside = cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    ridges[(unlabelled > 0) & (beside > 0)] = 1
    return regions + components(unlabelled & (1 - ridges)), ridges


def _markers(mask: np.ndarray, depth: np.ndarray, splitting: Splitting) -> tuple[np.ndarray, int]:
    """The markers, numbered from 1, int32; and their number."""
    deepest = float(depth.max())
    markers = np.zeros(mask.shape, np.int32)
    count = 0
    for core in components((depth > splitting.split_cut * deepest).astype(np.uint8), splitting.split_peak_area):
        if depth[core.window][core.mask > 0].max() <= splitting.split_peak_share * deepest:
            continue
        count += 1
        marker = core.to_mask(mask.shape)
        if splitting.split_marker_radius:
            marker = cv2.dilate(marker, disk(splitting.split_marker_radius))
        markers[(marker > 0) & (mask > 0) & (markers == 0)] = count
    return markers, count
