"""Nuclei by Otsu's threshold on grey, after a 5 × 5 Gaussian of σ 2; touching ones split by a marker watershed.

As published the bright side of the threshold is taken, which is the background; by default nuclei are its dark side.
"""

from __future__ import annotations

from wbctool.segmentation.method import Image, Method, Objects, PublishedRule, Splitting


def find(image: Image, parameters: PublishedRule, splitting: Splitting | None) -> Objects:
    """Find nuclei."""
    import cv2
    import numpy as np

    from wbctool.segmentation.regions import otsu
    from wbctool.segmentation.thresholds import refined_nuclei

    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (5, 5), 2.0).astype(np.float32)
    return refined_nuclei(otsu(grey if parameters.as_published else -grey), parameters, splitting)


WATERSHED = Method(
    "watershed",
    "Otsu's threshold on grey; touching nuclei are always split",
    "EfficientNetV2-S paper, section 4.2.7",
    find,
    PublishedRule,
    always_splits=True,
)
