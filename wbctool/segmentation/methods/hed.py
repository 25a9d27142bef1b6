"""Nuclei by haematoxylin: its density, as colour deconvolution gives it, lies above Otsu's threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.segmentation.method import Method, Refinement, Splitting

if TYPE_CHECKING:
    import numpy as np

    from wbctool.imaging.label_image import Objects


def find(image: np.ndarray, parameters: Refinement, splitting: Splitting | None) -> Objects:
    """Find nuclei."""
    from wbctool.imaging.colour import haematoxylin
    from wbctool.segmentation.regions import otsu
    from wbctool.segmentation.thresholds import refined_nuclei

    return refined_nuclei(otsu(haematoxylin(image)), parameters, splitting)


HED = Method(
    "hed",
    "Otsu's threshold on the density of haematoxylin",
    "EfficientNetV2-S paper, equation 27; Ruifrok and Johnston 2001",
    find,
    Refinement,
)
