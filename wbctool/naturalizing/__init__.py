"""Naturalizing: composites of real cells and real fields of view, for training only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.naturalizing.options import CompositeOptions
from wbctool.pipeline.exports import lazy_exports

if TYPE_CHECKING:
    from wbctool.naturalizing.step import CompositeResult, make_composites

__all__ = ["CompositeOptions", "CompositeResult", "make_composites"]
__getattr__ = lazy_exports(__name__, {"CompositeResult": "step", "make_composites": "step"})
