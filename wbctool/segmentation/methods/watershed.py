"""Nuclei by Otsu's threshold on grey, after a 5 × 5 Gaussian of σ 2; touching ones split by a marker watershed.

As published the bright side of the threshold is taken, which is the background; by default nuclei are its dark side.
"""

from __future__ import annotations

from wbctool.pipeline.parameters import parameter
from wbctool.segmentation.method import Image, Method, Objects, PublishedRule


class WatershedParameters(PublishedRule):
    """The published rule, with touching nuclei always split."""

    split_touching: bool = parameter(True, "Marker watershed.")


def find(image: Image, parameters: WatershedParameters) -> Objects:
    import cv2
    import numpy as np

    from wbctool.segmentation.thresholds import otsu, refined_nuclei

    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (5, 5), 2.0).astype(np.float32)
    return refined_nuclei(otsu(grey if parameters.as_published else -grey), parameters)


WATERSHED = Method(
    "watershed",
    "Otsu's threshold on grey; touching nuclei are always split",
    "EfficientNetV2-S paper, section 4.2.7",
    find,
    WatershedParameters,
)
