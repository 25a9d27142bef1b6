"""Naturalizing: composites of real cells and real fields of view, for training only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wbctool.naturalizing.options import CompositeOptions

if TYPE_CHECKING:
    from wbctool.naturalizing.composites import CompositeResult, make_composites

__all__ = ["CompositeOptions", "CompositeResult", "make_composites"]


def __getattr__(name: str) -> Any:
    from wbctool.naturalizing import composites  # NumPy and OpenCV are imported where they are used

    return getattr(composites, name)
