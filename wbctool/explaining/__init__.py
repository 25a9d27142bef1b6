"""Where a classifier looks: class-activation maps, and scores of how far they can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.explaining.method import METHODS
from wbctool.explaining.options import ExplanationOutput, ExplanationResult, MapOptions
from wbctool.pipeline.exports import lazy_exports

if TYPE_CHECKING:
    from wbctool.explaining.run import explain_run

__all__ = ["METHODS", "ExplanationOutput", "ExplanationResult", "MapOptions", "explain_run"]
__getattr__ = lazy_exports(__name__, {"explain_run": "run"})
