"""Cropping: one image, and its mask, per cell. `crop_cells` does what `wbctool crop` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wbctool.cropping.parameters import CropParameters

if TYPE_CHECKING:
    from wbctool.cropping.step import crop_cells

__all__ = ["CropParameters", "crop_cells"]


def __getattr__(name: str) -> Any:
    if name == "crop_cells":  # OpenCV is imported where it is used
        from wbctool.cropping.step import crop_cells

        return crop_cells
    raise AttributeError(f"module {__name__} has no attribute {name}")
