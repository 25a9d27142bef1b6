"""Nuclei by a* of CIE L*a*b*: the EfficientNetV2-S paper, its section 5.3.

As published nuclei have a negative a* and a positive b*, which picks the yellowish slide. As meant,
a* lies above Otsu's threshold: chromatin is the most purple of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from wbctool.imaging.label_image import Objects
from wbctool.segmentation.regions import otsu
from wbctool.segmentation.thresholds import REFINEMENT, Refinement, Splitting, nuclei_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

CONSTANTS = {"as_published": False, **REFINEMENT}


def segment(
    image: np.ndarray, split: Splitting | None, as_published: bool, **refinement: Unpack[Refinement]
) -> Objects:
    """Nuclei of an RGB image (height, width, 3), uint8."""
    space = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
    mask = (space[..., 1] < 0) & (space[..., 2] > 0) if as_published else otsu(space[..., 1])
    return nuclei_of(mask.astype(np.uint8), split=split, **refinement)
