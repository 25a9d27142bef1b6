"""Nuclei by their stain, cell borders by a closed shortest path around each."""

from __future__ import annotations

from wbctool.segmentation.method import Image, Method, Objects, Splitting


def find(image: Image, _parameters: Splitting) -> Objects:
    """Find white cells with nuclei, red cells and platelets; touching ones are always split."""
    from wbctool.segmentation.stain import segment

    return segment(image)


STAIN = Method(
    "stain",
    "nuclei by their stain, cell borders by a shortest path around each",
    "this package",
    find,
    Splitting,
    objects="whole white cells, red cells and platelets",
)
