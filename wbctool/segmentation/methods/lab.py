"""Nuclei by a* of CIE L*a*b*.

As published nuclei have a negative a* and a positive b*, which selects the yellowish background. By default a* lies
above Otsu's threshold, as chromatin is the most purple of all.
"""

from __future__ import annotations

from wbctool.segmentation.method import Image, Method, Objects, PublishedRule


def find(image: Image, parameters: PublishedRule) -> Objects:
    import cv2
    import numpy as np

    from wbctool.segmentation.thresholds import otsu, refined_nuclei

    lab = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
    a, b = lab[..., 1], lab[..., 2]
    mask = (a < 0) & (b > 0) if parameters.as_published else otsu(a)
    return refined_nuclei(mask.astype(np.uint8), parameters)


LAB = Method("lab", "Otsu's threshold on a* of L*a*b*", "EfficientNetV2-S paper, section 5.3", find, PublishedRule)
