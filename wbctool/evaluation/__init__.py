"""Evaluation: predictions, or masks, against the truth.

`evaluate_predictions`, `count_cells` and `evaluate_masks` do what `wbctool evaluate` does. They print nothing.
"""

from typing import TYPE_CHECKING

from wbctool.pipeline.exports import lazy_exports

if TYPE_CHECKING:
    from wbctool.evaluation.agreement import evaluate_masks
    from wbctool.evaluation.differential import count_cells
    from wbctool.evaluation.predictions import EvaluationOptions
    from wbctool.evaluation.run_evaluation import evaluate_predictions

__all__ = ["EvaluationOptions", "count_cells", "evaluate_masks", "evaluate_predictions"]
__getattr__ = lazy_exports(
    __name__,
    {
        "EvaluationOptions": "predictions",
        "count_cells": "differential",
        "evaluate_masks": "agreement",
        "evaluate_predictions": "run_evaluation",
    },
)
