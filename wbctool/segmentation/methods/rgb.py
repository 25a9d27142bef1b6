"""Nuclei by thresholds on red, green and blue.

As published all three must exceed their thresholds, which selects the bright background. By default nuclei are dark and
purple: red and green do not exceed their thresholds, and blue exceeds green.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Strict

from wbctool.pipeline.parameters import parameter
from wbctool.segmentation.method import AS_PUBLISHED, PANEL, Image, Method, Objects, Refinement

RgbValues = Annotated[tuple[float, float, float], Strict(False)]  # records hold lists


class RgbParameters(Refinement):
    """The thresholds, 0 to 1, and which rule is applied."""

    as_published: bool = parameter(False, AS_PUBLISHED)
    rgb_thresholds: RgbValues = parameter((0.5, 0.3, 0.4), "Thresholds.", form="R,G,B", panel=PANEL)


def find(image: Image, parameters: RgbParameters) -> Objects:
    from wbctool.segmentation.thresholds import refined_nuclei

    limits = [255.0 * value for value in parameters.rgb_thresholds]
    red, green, blue = (image[..., channel] for channel in range(3))
    if parameters.as_published:
        mask = (red > limits[0]) & (green > limits[1]) & (blue > limits[2])
    else:
        mask = (red <= limits[0]) & (green <= limits[1]) & (blue > green)
    return refined_nuclei(mask.astype("uint8"), parameters)


RGB = Method("rgb", "thresholds on red, green and blue", "EfficientNetV2-S paper, equation 6", find, RgbParameters)
