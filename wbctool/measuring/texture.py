"""Texture of nucleus and cytoplasm: chromatin, granules, vacuoles."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from wbctool.measuring.view import CellView

_LEVELS = 32
_DISTANCES = (1, 3)
_ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
_PROPERTIES = ("contrast", "homogeneity", "energy", "correlation")
_DARKEST = 2.0  # absorbance, natural logarithm, that takes the highest level
_GRAINS = (1, 2, 4)  # radii, pixels
_PATTERNS = ((8, 1), (8, 3))  # neighbours, radius


def textures(view: CellView) -> dict[str, float]:
    """Compute grey-level co-occurrence, local binary patterns and grain of the green absorbance, by region.

    Co-occurrence (Haralick et al. 1973): 32 levels, the mean over 4 directions, pairs within the region.
    Patterns: uniform, rotation-invariant (Ojala et al. 2002). Grain: the mean of what an opening (dark grains) and a
    closing (pale ones) by discs of 1, 2 and 4 pixels remove, over all three absorbances.
    """
    green = view.density[..., 1]
    levels = np.clip(green / _DARKEST * (_LEVELS - 1), 0, _LEVELS - 1).astype(np.uint8)
    smooth = (np.clip(green / _DARKEST, 0, 1) * 255).astype(np.uint8)
    patterns = {radius: local_binary_pattern(smooth, points, radius, "uniform") for points, radius in _PATTERNS}
    grains = _grains(view.density)
    measures: dict[str, float] = {}
    for region, mask in view.regions.items():
        prefix = f"texture.{region}"
        measures |= {f"{prefix}.{name}": value for name, value in _co_occurrence(levels, mask).items()}
        for (points, radius), pattern in zip(_PATTERNS, patterns.values(), strict=True):
            frequencies = np.bincount(pattern[mask].astype(int), minlength=points + 2) / mask.sum()
            measures |= {f"{prefix}.pattern{radius}.{bin_}": float(one) for bin_, one in enumerate(frequencies)}
        measures |= {f"{prefix}.{name}": float(grain[mask].mean()) for name, grain in grains.items()}
    return measures


def _co_occurrence(levels: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    window = (slice(y, y + height), slice(x, x + width))
    inside = np.where(mask[window], levels[window] + 1, 0).astype(np.uint8)
    counts = graycomatrix(inside, _DISTANCES, _ANGLES, _LEVELS + 1, symmetric=True)[1:, 1:].astype(np.float64)
    counts = counts.sum(3, keepdims=True)  # all directions, as cells have no upright
    frequencies = counts / np.maximum(counts.sum((0, 1), keepdims=True), 1)
    measures = {}
    for name in _PROPERTIES:
        for distance, row in zip(_DISTANCES, graycoprops(frequencies, name), strict=True):
            measures[f"{name}{distance}"] = float(row[0])
    logarithms = np.log2(frequencies, where=frequencies > 0, out=np.zeros_like(frequencies))
    for at, distance in enumerate(_DISTANCES):
        measures[f"entropy{distance}"] = float(-(frequencies[:, :, at] * logarithms[:, :, at]).sum())
    return measures


def _grains(density: np.ndarray) -> dict[str, np.ndarray]:
    grains = {}
    for radius in _GRAINS:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        dark = cv2.morphologyEx(density, cv2.MORPH_TOPHAT, disc)
        pale = cv2.morphologyEx(density, cv2.MORPH_BLACKHAT, disc)
        for at, name in enumerate(("red", "green", "blue")):
            grains[f"grain{radius}.dark.{name}"] = dark[..., at]
            grains[f"grain{radius}.pale.{name}"] = pale[..., at]
    return grains
