"""Nuclei by thresholds on red, green and blue: the EfficientNetV2-S paper, its equation 6.

As published all three must exceed their thresholds (0.5, 0.3, 0.4), which picks the bright slide.
As meant, nuclei are dark and purple: red and green under their thresholds, blue above green.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wbctool.imaging.label_image import Objects
from wbctool.segmentation.thresholds import REFINEMENT, Refinement, Splitting, nuclei_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

CONSTANTS = {"as_published": False, "rgb_thresholds": (0.5, 0.3, 0.4), **REFINEMENT}


def segment(
    image: np.ndarray,
    split: Splitting | None,
    as_published: bool,
    rgb_thresholds: tuple[float, float, float],
    **refinement: Unpack[Refinement],
) -> Objects:
    """Nuclei of an RGB image (height, width, 3), uint8; thresholds of red, green and blue, 0 to 1."""
    limits = [255.0 * share for share in rgb_thresholds]
    red, green, blue = (image[..., channel] for channel in range(3))
    if as_published:
        mask = (red > limits[0]) & (green > limits[1]) & (blue > limits[2])
    else:
        mask = (red <= limits[0]) & (green <= limits[1]) & (blue > green)
    return nuclei_of(mask.astype(np.uint8), split=split, **refinement)
