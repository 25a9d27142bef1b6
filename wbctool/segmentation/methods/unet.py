"""A small U-Net, trained on images of several laboratories with made-up stains; the default."""

from __future__ import annotations

from wbctool.segmentation.method import Image, Method, Objects, Splitting


def find(image: Image, _parameters: Splitting) -> Objects:
    """Find white cells with nuclei, red cells and platelets; touching ones are always split."""
    from wbctool.segmentation.unet import segment

    return segment(image)


UNET = Method(
    "unet",
    "a small U-Net, trained on many stains",
    "this package; U-Net: Ronneberger et al. 2015",
    find,
    Splitting,
    objects="whole white cells, red cells and platelets",
)
