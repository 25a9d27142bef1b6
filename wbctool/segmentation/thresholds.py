"""What the published threshold methods share: from a mask of nuclei to objects.

The refinement is that of the EfficientNetV2-S paper, its section 4.2.5: erosion, then dilation, each
twice, with a disk of radius 3; objects under 80 pixels dropped; a Gaussian of σ 1 over the mask.
"""

from __future__ import annotations

from typing import TypedDict

import cv2
import numpy as np

from wbctool.imaging.label_image import Objects, Region
from wbctool.segmentation.regions import components, disk, gather_lobes


class Refinement(TypedDict):
    """Constants that most methods have, as `nuclei_of` takes them."""

    radius: int
    iterations: int
    min_area: float
    smooth: float


class Splitting(TypedDict):
    """Constants of the marker watershed, as `split_touching` takes them."""

    peak_share: float
    peak_area: float
    marker_radius: int
    cut: float


REFINEMENT: Refinement = {"radius": 3, "iterations": 2, "min_area": 80.0, "smooth": 1.0}
# section 4.2.7: peaks over half of the greatest distance, of at least 127 pixels, cut at 0.4 of it
SPLITTING: Splitting = {"peak_share": 0.5, "peak_area": 127.0, "marker_radius": 2, "cut": 0.4}


def refined(mask: np.ndarray, radius: int, iterations: int, smooth: float) -> np.ndarray:
    """Erosion, dilation and smoothing of a mask, uint8; 0 switches each off."""
    if radius and iterations:
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disk(radius), iterations=iterations)
    if smooth:
        mask = (cv2.GaussianBlur(mask * np.uint8(255), (0, 0), smooth) > 127).astype(np.uint8)
    return mask


def nuclei_of(
    mask: np.ndarray, *, radius: int, iterations: int, min_area: float, smooth: float, split: Splitting | None
) -> Objects:
    """Objects of a raw mask of nuclei: a cell is its nucleus, lobes that lie near are one.

    Args:
        mask: uint8, 0 or 1.
        radius: of the disk, pixels.
        iterations: of erosion and of dilation.
        min_area: smaller objects are dropped, pixels.
        smooth: σ of the Gaussian, pixels.
        split: constants of the marker watershed that parts what touches; None leaves it whole.
    """
    mask = refined(mask, radius, iterations, smooth)
    if split is None:
        return Objects(cells=[(nucleus, nucleus) for nucleus in gather_lobes(mask, min_area)])
    parts, ridges = split_touching(mask, **split)
    kept = [part for part in parts if part.area >= min_area]
    return Objects(cells=[(part, part) for part in kept], ridges=ridges)


def split_touching(
    mask: np.ndarray, peak_share: float, peak_area: float, marker_radius: int, cut: float
) -> tuple[list[Region], np.ndarray]:
    """Part touching objects by a marker watershed on the distance from their border.

    Source: the EfficientNetV2-S paper, section 4.2.7. A marker is a component of what lies deeper than
    `cut` of the greatest depth, when its peak lies deeper than `peak_share` of it and it has `peak_area`
    pixels; dilated by a disk of `marker_radius`. What has no marker stays whole.

    Args:
        mask: uint8, 0 or 1.
        peak_share: share of the greatest depth.
        peak_area: pixels.
        marker_radius: pixels.
        cut: share of the greatest depth.

    Returns:
        The parts, and the ridges between them, uint8.
    """
    from skimage.segmentation import watershed

    ridges = np.zeros_like(mask)
    if not mask.any():
        return [], ridges
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    deepest = float(depth.max())
    markers = np.zeros(mask.shape, np.int32)
    value = 0
    for core in components((depth > cut * deepest).astype(np.uint8), peak_area):
        if depth[core.window][core.mask > 0].max() <= peak_share * deepest:
            continue
        value += 1
        grown = cv2.dilate(core.drawn(mask.shape), disk(marker_radius)) if marker_radius else core.drawn(mask.shape)
        markers[(grown > 0) & (mask > 0) & (markers == 0)] = value
    labels = watershed(-depth, markers, mask=mask > 0, watershed_line=True)
    alone = mask.copy()
    parts = []
    for part in range(1, value + 1):
        own = (labels == part).astype(np.uint8)
        alone[own > 0] = 0
        if own.any():
            parts.append(Region.of(own))
    # a line of the watershed has two parts beside it; what is left otherwise had no marker
    beside = cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    ridges[(alone > 0) & (beside > 0)] = 1
    parts += components(alone & (1 - ridges))
    return parts, ridges
