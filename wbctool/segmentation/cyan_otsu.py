"""Nuclei by Otsu's threshold on the cyan of CMYK, as in the attentive-CNN paper (its section 2.2).

Opening, closing and hole filling follow. Only nuclei are found: a cell is its nucleus. The paper gives
no sizes for them: a radius of 1 is ours, and the least area is that of the EfficientNetV2-S paper.
"""

from __future__ import annotations

import numpy as np

from wbctool.imaging.colour import cyan
from wbctool.imaging.label_image import Objects
from wbctool.segmentation.regions import otsu, tidy
from wbctool.segmentation.thresholds import Splitting, nuclei_of

CONSTANTS = {"radius": 1, "min_area": 80.0}


def segment(image: np.ndarray, split: Splitting | None, radius: int, min_area: float) -> Objects:
    """Nuclei of an RGB image (height, width, 3), uint8."""
    return nuclei_of(tidy(otsu(cyan(image)), radius), radius=0, iterations=0, min_area=min_area, smooth=0, split=split)
