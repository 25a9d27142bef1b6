"""Enhancing: contrast, stain and noise of whole images. `enhance_images` does what `wbctool enhance` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wbctool.enhancing.parameters import EnhanceParameters

if TYPE_CHECKING:
    from wbctool.enhancing.step import enhance_images

__all__ = ["EnhanceParameters", "enhance_images"]


def __getattr__(name: str) -> Any:
    if name == "enhance_images":  # OpenCV is imported where it is used
        from wbctool.enhancing.step import enhance_images

        return enhance_images
    raise AttributeError(f"module {__name__} has no attribute {name}")
