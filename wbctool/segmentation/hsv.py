"""Nuclei by hue and saturation: the EfficientNetV2-S paper, its section 5.3 (hue 270° ± 15°, S > 0.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from wbctool.imaging.label_image import Objects
from wbctool.segmentation.thresholds import REFINEMENT, Refinement, Splitting, nuclei_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

CONSTANTS = {"hue": 270.0, "hue_width": 15.0, "min_saturation": 0.2, **REFINEMENT}


def segment(
    image: np.ndarray,
    split: Splitting | None,
    hue: float,
    hue_width: float,
    min_saturation: float,
    **refinement: Unpack[Refinement],
) -> Objects:
    """Nuclei of an RGB image (height, width, 3), uint8; hues in degrees, saturation 0 to 1."""
    space = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2HSV)
    apart = np.abs((space[..., 0] - hue + 180.0) % 360.0 - 180.0)
    mask = (apart <= hue_width) & (space[..., 1] > min_saturation)
    return nuclei_of(mask.astype(np.uint8), split=split, **refinement)
