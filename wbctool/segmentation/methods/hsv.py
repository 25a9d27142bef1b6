"""Nuclei by hue and saturation."""

from __future__ import annotations

from wbctool.pipeline.parameters import parameter
from wbctool.segmentation.method import PANEL, Image, Method, Objects, Refinement


class HsvParameters(Refinement):
    """The range of hues, and the least saturation."""

    hue: float = parameter(270.0, "Hue.", low=0, high=360, form="DEGREES", panel=PANEL)
    hue_width: float = parameter(15.0, "Either side of it.", low=0, high=180, form="DEGREES", panel=PANEL)
    min_saturation: float = parameter(0.2, "Least saturation.", low=0, high=1, form="S", panel=PANEL)


def find(image: Image, parameters: HsvParameters) -> Objects:
    import cv2
    import numpy as np

    from wbctool.segmentation.thresholds import refined_nuclei

    hsv = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2HSV)
    distance = np.abs((hsv[..., 0] - parameters.hue + 180.0) % 360.0 - 180.0)
    mask = (distance <= parameters.hue_width) & (hsv[..., 1] > parameters.min_saturation)
    return refined_nuclei(mask.astype(np.uint8), parameters)


HSV = Method(
    "hsv", "hue 270° ± 15° and saturation over 0.2", "EfficientNetV2-S paper, section 5.3", find, HsvParameters
)
