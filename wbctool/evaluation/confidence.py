"""Confidence in the report: reliability before and after scaling, the risk–coverage curve, and a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np

from wbctool.errors import InputError
from wbctool.evaluation.predictions import Predictions
from wbctool.evaluation.subsets import summary_of
from wbctool.statistics.calibration import coverage_table, reliability, risk_coverage, scaled, threshold_for
from wbctool.statistics.metrics import METRICS
from wbctool.statistics.scores import Scores
from wbctool.statistics.summary import values_of


def confidence_of(predictions: Predictions) -> dict[str, Any]:
    """Return the report's `temperature`, `reliability`, `coverage` and `before`.

    `temperature` is None where images have several. `before` has reliability, log loss and calibration error of the
    probabilities before they were scaled, or is None where none was.
    """
    temperatures = np.unique(predictions.temperature)
    report: dict[str, Any] = {
        "temperature": float(temperatures[0]) if len(temperatures) == 1 else None,
        "reliability": reliability(predictions.confidence, predictions.correct),
        "coverage": coverage_table(predictions.confidence, predictions.correct),
        "before": None,
    }
    if (temperatures != 1).any():
        probabilities = scaled(predictions.probabilities, 1 / predictions.temperature)
        before = Scores(predictions.truth, predictions.predicted, probabilities)
        report["before"] = {
            **values_of(before, [METRICS.get("log_loss"), METRICS.get("calibration_error")]),
            "reliability": reliability(before.confidence, before.correct),
        }
    return report


def choose_threshold(predictions: Predictions, threshold: float | None, target: float | None) -> tuple[float, str]:
    """Return a threshold of confidence, and what it was chosen on: `given`, `validation` or the evaluated split.

    Args:
        predictions: that are evaluated.
        threshold: taken as it is.
        target: without a threshold, the error that it is to leave.

    Raises:
        InputError: no threshold reaches the target.
    """
    if threshold is not None:
        return threshold, "given"
    assert target is not None
    basis = predictions.validation or predictions
    chosen = threshold_for(basis.confidence, basis.correct, target)
    if chosen is None:
        least = float(risk_coverage(basis.confidence, basis.correct)[2].min())
        raise InputError(f"--target-error {target:g}: no threshold reaches it (the least error is {least:.3g})")
    return chosen, "validation" if predictions.validation else predictions.split


def threshold_report(predictions: Predictions, threshold: float, chosen_on: str) -> dict[str, Any]:
    """Count uncertain predictions, of all classes and of each, and summarise the rest."""
    certain = predictions.confidence >= threshold
    count = len(predictions.classes)
    support = np.bincount(predictions.truth, minlength=count)
    uncertain = np.bincount(predictions.truth[~certain], minlength=count)
    return {
        "value": threshold,
        "chosen_on": chosen_on,
        "uncertain": int((~certain).sum()),
        "classes": {
            name: {"support": int(support[index]), "uncertain": int(uncertain[index])}
            for index, name in enumerate(predictions.classes)
        },
        "rest": summary_of(predictions.subset(certain)) if certain.any() else None,
    }
