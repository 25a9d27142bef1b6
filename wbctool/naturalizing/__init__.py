"""Naturalizing: composites of real cells and real fields of view, for training only."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wbctool.naturalizing.options import CompositeOptions

if TYPE_CHECKING:
    from wbctool.naturalizing.step import CompositeResult, make_composites

__all__ = ["CompositeOptions", "CompositeResult", "make_composites"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # NumPy and OpenCV are imported where they are used
        return getattr(import_module(f"{__name__}.step"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
