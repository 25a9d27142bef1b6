"""Evaluation: predictions, or masks, against the truth.

`evaluate_predictions`, `count_cells` and `evaluate_masks` do what `wbctool evaluate` does. They print nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wbctool.evaluation.agreement import evaluate_masks
    from wbctool.evaluation.differential import count_cells
    from wbctool.evaluation.predictions import EvaluationOptions
    from wbctool.evaluation.run_evaluation import evaluate_predictions

__all__ = ["EvaluationOptions", "count_cells", "evaluate_masks", "evaluate_predictions"]
_MODULES = {"EvaluationOptions": "predictions", "count_cells": "differential", "evaluate_masks": "agreement"}


def __getattr__(name: str) -> Any:  # imported when used, as only masks and audits need OpenCV
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'run_evaluation')}"), name)
