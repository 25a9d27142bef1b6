"""Nuclei by haematoxylin: the EfficientNetV2-S paper, its equation 27; colour deconvolution is
Ruifrok and Johnston 2001.

The density of haematoxylin, as scikit-image's `rgb2hed` unmixes it, lies above Otsu's threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from wbctool.imaging.colour import STAINS
from wbctool.imaging.label_image import Objects
from wbctool.segmentation.regions import otsu
from wbctool.segmentation.thresholds import REFINEMENT, Refinement, Splitting, nuclei_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

CONSTANTS = {**REFINEMENT}
_HAEMATOXYLIN = np.linalg.inv(STAINS)[:, 0]


def haematoxylin(image: np.ndarray) -> np.ndarray:
    """Density of haematoxylin (height, width), float32, of an RGB image, uint8."""
    levels = np.log(np.maximum(np.arange(256, dtype=np.float64) / 255.0, 1e-6)) / np.log(1e-6)
    planes = [
        cv2.LUT(np.ascontiguousarray(image[..., channel]), (levels * weight).astype(np.float32))
        for channel, weight in enumerate(_HAEMATOXYLIN)
    ]
    return np.maximum(planes[0] + planes[1] + planes[2], 0.0)


def segment(image: np.ndarray, split: Splitting | None, **refinement: Unpack[Refinement]) -> Objects:
    """Nuclei of an RGB image (height, width, 3), uint8."""
    return nuclei_of(otsu(haematoxylin(image)), split=split, **refinement)
