"""Splitting: train, validation and test that share no group."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wbctool.splitting.options import SplitOptions

if TYPE_CHECKING:
    from wbctool.splitting.step import SplitResult, split_records

__all__ = ["SplitOptions", "SplitResult", "split_records"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # NumPy is imported where it is used
        return getattr(import_module(f"{__name__}.step"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
