"""Splitting: train, validation and test that share no group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.pipeline.exports import lazy_exports
from wbctool.splitting.options import SplitOptions

if TYPE_CHECKING:
    from wbctool.splitting.step import SplitResult, split_records

__all__ = ["SplitOptions", "SplitResult", "split_records"]
__getattr__ = lazy_exports(__name__, {"SplitResult": "step", "split_records": "step"})
