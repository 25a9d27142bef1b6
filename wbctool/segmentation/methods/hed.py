"""Nuclei by haematoxylin: its density, as colour deconvolution gives it, lies above Otsu's threshold."""

from __future__ import annotations

from wbctool.segmentation.method import Image, Method, Objects, Refinement


def find(image: Image, parameters: Refinement) -> Objects:
    from wbctool.imaging.colour import haematoxylin
    from wbctool.segmentation.thresholds import otsu, refined_nuclei

    return refined_nuclei(otsu(haematoxylin(image)), parameters)


HED = Method(
    "hed",
    "Otsu's threshold on the density of haematoxylin",
    "EfficientNetV2-S paper, equation 27; Ruifrok and Johnston 2001",
    find,
    Refinement,
)
