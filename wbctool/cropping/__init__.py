"""Cropping: one image, and its mask, per cell. `crop_cells` does what `wbctool crop` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.cropping.parameters import CropParameters
from wbctool.pipeline.exports import lazy_exports

if TYPE_CHECKING:
    from wbctool.cropping.step import crop_cells

__all__ = ["CropParameters", "crop_cells"]
__getattr__ = lazy_exports(__name__, {"crop_cells": "step"})
