"""Segmentation: white cells with their nuclei, red cells and platelets in smear images.

`segment_images` does what `wbctool segment` does, `find_objects` works on one image. Each method is declared in a
module of `wbctool.segmentation.methods`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wbctool.segmentation.method import METHODS, Method, find_objects

if TYPE_CHECKING:
    from wbctool.segmentation.step import segment_images

__all__ = ["METHODS", "Method", "find_objects", "segment_images"]


def __getattr__(name: str) -> Any:
    if name == "segment_images":  # OpenCV is imported where it is used
        from wbctool.segmentation.step import segment_images

        return segment_images
    raise AttributeError(f"module {__name__} has no attribute {name}")
