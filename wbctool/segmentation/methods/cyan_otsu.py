"""Nuclei by Otsu's threshold on the cyan of CMYK, then opening, closing and hole filling.

The attentive-CNN paper gives no sizes for them: a radius of 1 is our choice, and the least area is that of the
EfficientNetV2-S paper.
"""

from __future__ import annotations

from wbctool.pipeline.parameters import parameter
from wbctool.segmentation.method import PANEL, Image, Method, Objects, Splitting


class CyanOtsuParameters(Splitting):
    """Size of the opening and closing, and of the least nucleus."""

    radius: int = parameter(1, "Radius of the opening.", low=0, high=99, form="PX", panel=PANEL)
    min_area: float = parameter(80.0, "Least object.", low=1, high=1e9, form="PX", panel=PANEL)


def find(image: Image, parameters: CyanOtsuParameters) -> Objects:
    from wbctool.imaging.colour import cyan
    from wbctool.segmentation.regions import tidy
    from wbctool.segmentation.thresholds import nuclei_of, otsu

    return nuclei_of(tidy(otsu(cyan(image)), parameters.radius), parameters.min_area, parameters)


CYAN_OTSU = Method(
    "cyan-otsu", "Otsu's threshold on the cyan of CMYK", "attentive-CNN paper, section 2.2", find, CyanOtsuParameters
)
