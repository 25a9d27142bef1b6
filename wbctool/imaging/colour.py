"""Colour measures of a smear that do not depend on its lamp or its camera.

Images are RGB, shape (height, width, 3), uint8; measures are float32 of shape (height, width).
"""

from __future__ import annotations

import cv2
import numpy as np


def cyan(image: np.ndarray) -> np.ndarray:
    """The cyan of CMYK with full black replacement, 0 to 1: (max(R, G, B) − R) / max(R, G, B)."""
    peak = image.max(axis=2).astype(np.float32)
    return (peak - image[..., 0]) / np.maximum(peak, 1)


def background_colour(image: np.ndarray) -> np.ndarray:
    """Colour of the background: the median colour at the brightest mode of green.

    Green is what stains and haemoglobin both absorb. A mode counts when it is at least 15 % as
    high as the highest, so that glare and borders are ignored. RGB, shape (3,), float32, 1 to 255.
    """
    green = image[..., 1]
    counts = np.bincount(green.ravel(), minlength=256).astype(np.float64)
    smooth = np.convolve(counts, np.ones(9) / 9, "same")
    padded = np.pad(smooth, 8)
    local = np.lib.stride_tricks.sliding_window_view(padded, 17).max(axis=1)
    modes = np.flatnonzero((smooth == local) & (smooth > 0.15 * smooth.max()))
    near = np.abs(green.astype(np.int16) - int(modes.max())) <= 6
    return np.maximum(np.median(image[near], axis=0), 1.0).astype(np.float32)


def optical_density(image: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Absorbance of each channel, (height, width, 3), against the background (Beer–Lambert), natural logarithm."""
    levels = np.arange(256, dtype=np.float32)
    planes = [
        cv2.LUT(np.ascontiguousarray(image[..., c]), -np.log((levels + 1) / (background[c] + 1))) for c in range(3)
    ]
    return cv2.merge(planes)


def stain_chroma(density: np.ndarray) -> np.ndarray:
    """Red + green − blue of absorbances (…, 3): high where the blue-violet nuclear stain is, low in red cells."""
    return density[..., 0] + density[..., 1] - density[..., 2]


# haematoxylin, eosin, DAB as absorbances of red, green, blue (Ruifrok and Johnston 2001)
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_HAEMATOXYLIN = np.linalg.inv(STAINS)[:, 0]


def haematoxylin(image: np.ndarray) -> np.ndarray:
    """Density of haematoxylin by colour deconvolution (Ruifrok and Johnston 2001), as scikit-image's `rgb2hed`."""
    levels = np.log(np.maximum(np.arange(256, dtype=np.float64) / 255.0, 1e-6)) / np.log(1e-6)
    planes = [
        cv2.LUT(np.ascontiguousarray(image[..., channel]), (levels * weight).astype(np.float32))
        for channel, weight in enumerate(_HAEMATOXYLIN)
    ]
    return np.maximum(planes[0] + planes[1] + planes[2], 0.0)
