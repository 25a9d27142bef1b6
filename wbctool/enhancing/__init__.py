"""Enhancing: contrast, stain and noise of whole images. `enhance_images` does what `wbctool enhance` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.enhancing.parameters import EnhanceParameters
from wbctool.pipeline.exports import lazy_exports

if TYPE_CHECKING:
    from wbctool.enhancing.step import enhance_images

__all__ = ["EnhanceParameters", "enhance_images"]
__getattr__ = lazy_exports(__name__, {"enhance_images": "step"})
