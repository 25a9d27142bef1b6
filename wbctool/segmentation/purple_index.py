"""Nuclei by the purple index, (R + B) / 2 − G: the EfficientNetV2-S paper, its equations 4 and 5.

The paper takes a threshold from 0.1 to 0.3, or Otsu's, which is the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wbctool.imaging.label_image import Objects
from wbctool.segmentation.regions import otsu
from wbctool.segmentation.thresholds import REFINEMENT, Refinement, Splitting, nuclei_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

CONSTANTS = {"theta": None, **REFINEMENT}


def segment(
    image: np.ndarray, split: Splitting | None, theta: float | None, **refinement: Unpack[Refinement]
) -> Objects:
    """Nuclei of an RGB image (height, width, 3), uint8; `theta` None takes Otsu's threshold."""
    share = image.astype(np.float32) / 255.0
    index = (share[..., 0] + share[..., 2]) / 2 - share[..., 1]
    mask = otsu(index) if theta is None else (index >= theta).astype(np.uint8)
    return nuclei_of(mask, split=split, **refinement)
