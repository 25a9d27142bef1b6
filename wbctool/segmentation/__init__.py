"""Segmentation: white cells with their nuclei, red cells and platelets in smear images.

`segment_images` does what `wbctool segment` does, `find_objects` works on one image. Each method is declared in a
module of `wbctool.segmentation.methods`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.pipeline.exports import lazy_exports
from wbctool.segmentation.method import METHODS, Method, find_objects

if TYPE_CHECKING:
    from wbctool.segmentation.step import segment_images

__all__ = ["METHODS", "Method", "find_objects", "segment_images"]
__getattr__ = lazy_exports(__name__, {"segment_images": "step"})
