"""Touching cells split by how deep each pixel lies in its cell."""

from __future__ import annotations

import cv2
import numpy as np

PEAKS = (0.8, 0.72, 0.64, 0.56, 0.48, 0.4, 0.32, 0.24, 0.16, 0.08)  # depths from which cells are told apart
LEVELS = (0.4, 0.32, 0.24, 0.16, 0.08, 0.0)  # depths at which they grow towards each other
SMALLEST_PEAK = 2  # pixels that a peak has at least


def split_by_depth(mask: np.ndarray, depth: np.ndarray, prominence: float) -> np.ndarray:
    """Split a mask by a watershed on the depth; a piece without a peak is one cell.

    Args:
        mask: of cells of one kind, (height, width), uint8.
        depth: 0 at the border of a cell, 1 in its middle, (height, width), float32.
        prominence: how far the depth falls between two cells at least.

    Returns:
        Label map, int32: 0 outside, cells from 1.
    """
    markers = np.zeros(mask.shape, np.int32)
    used = 0
    for level in (*PEAKS, -1.0):
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(
            mask * (depth > level).astype(np.uint8), connectivity=4
        )
        new = stats[:, cv2.CC_STAT_AREA] >= SMALLEST_PEAK
        if level > 0:
            new &= np.bincount(pieces[depth >= level + prominence], minlength=count) > 0
        new[pieces[markers > 0]] = False
        new[0] = False
        markers += np.where(new, used + np.cumsum(new), 0)[pieces].astype(np.int32)
        used += int(new.sum())
    return _flooded(markers, mask > 0, depth)


def _flooded(markers: np.ndarray, inside: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Grow markers over a mask, deep pixels first, so that they meet in the valleys of the depth.

    OpenCV's own watershed goes by differences of colour, not by height.
    """
    labels = markers.astype(np.uint16)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for level in LEVELS:
        free = inside & (labels == 0) & (depth >= level)
        while True:
            new = cv2.dilate(labels, cross) * free
            if not new.any():
                break
            labels += new
            free &= new == 0
    return labels.astype(np.int32)


def without_small(labels: np.ndarray, smallest: float, smallest_cut: float | None = None) -> np.ndarray:
    """Drop the labels of fewer pixels, at the edge of fewer than `smallest_cut`, and number the others from 1."""
    cut = smallest if smallest_cut is None else smallest_cut
    keep = np.bincount(labels.ravel()) >= np.where(touches_edge(labels), cut, smallest)
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0)[labels].astype(np.int32)


def touches_edge(labels: np.ndarray) -> np.ndarray:
    """Whether each label from 0 lies at the edge of a label map, bool."""
    touching = np.zeros(int(labels.max()) + 1, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touching[edge] = True
    return touching
