"""Nuclei by the purple index, (R + B) / 2 − G, over a threshold of 0.1 to 0.3, or Otsu's."""

from __future__ import annotations

from wbctool.pipeline.parameters import parameter
from wbctool.segmentation.method import PANEL, Image, Method, Objects, Refinement


class PurpleIndexParameters(Refinement):
    """The threshold."""

    theta: float | None = parameter(None, "Threshold; by default Otsu's.", low=-1, high=1, form="T", panel=PANEL)


def find(image: Image, parameters: PurpleIndexParameters) -> Objects:
    from wbctool.segmentation.thresholds import otsu, refined_nuclei

    colour = image.astype("float32") / 255.0
    index = (colour[..., 0] + colour[..., 2]) / 2 - colour[..., 1]
    mask = otsu(index) if parameters.theta is None else (index >= parameters.theta).astype("uint8")
    return refined_nuclei(mask, parameters)


PURPLE_INDEX = Method(
    "purple-index",
    "the purple index (R + B) / 2 − G over a threshold",
    "EfficientNetV2-S paper, equations 4 and 5",
    find,
    PurpleIndexParameters,
)
