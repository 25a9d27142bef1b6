"""The report of one run: a JSON object with every metric."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wbctool.errors import InputError
from wbctool.evaluation.predictions import Predictions
from wbctool.statistics.calibration import coverage_table, reliability, risk_coverage, scaled, threshold_for
from wbctool.statistics.counts import CLASS_METRICS, ConfusionCounts, Scores, confusion_matrix, values_of
from wbctool.statistics.intervals import Draws, Interval, confusion_intervals, score_intervals
from wbctool.statistics.metrics import METRICS, metrics_of

SCHEMA = "wbctool.evaluation/1"
_LISTED_ERRORS, _LISTED_CONFUSIONS = 10, 5


def report_of(
    predictions: Predictions, threshold: float | None = None, target_error: float | None = None
) -> dict[str, Any]:
    """Compute the report: one flat object of metrics, as `evaluate --json` prints it; undefined values are None.

    Predictions below the threshold of confidence, which may be sought for a target error, are set apart.

    Raises:
        InputError: no threshold reaches the target.
    """
    wanted = threshold is not None or target_error is not None
    uncertain = _threshold(predictions, threshold, target_error) if wanted else None
    classes, truth, predicted = predictions.classes, predictions.truth, predictions.predicted
    counts = ConfusionCounts(confusion_matrix(truth, predicted, len(classes)))
    values = values_of(predictions)
    draws = Draws(predictions.groups)
    intervals, drawn = score_intervals(draws, predictions, values)
    confusion, by_class = confusion_intervals(draws, truth, predicted, len(classes), drawn)
    return {
        "schema": SCHEMA,
        "run": predictions.run,
        "n": len(truth),
        "groups": draws.count,
        "split": predictions.split,
        **metric_values(values, intervals | confusion),
        "classes": {
            name: {
                "support": int(counts.support[index]),
                **{key: float(counts.per_class[key][index]) for key in CLASS_METRICS},
                "intervals": {key: ends_of(by_class[key][index]) for key in CLASS_METRICS},
            }
            for index, name in enumerate(classes)
        },
        "confusion": {"classes": classes, "matrix": counts.confusion.tolist()},
        "confused": _most_confused(counts.confusion, classes),
        "wrongest": _most_confident_errors(predictions),
        **_confidence(predictions),
        "threshold": uncertain,
        "left_out": predictions.notes,
        "composites": predictions.composites,
    }


def summary_of(predictions: Predictions) -> dict[str, Any]:
    """Return `n`, the metrics declared for a summary, and their `intervals`, of one image or more."""
    metrics = metrics_of("confusion", "summary")
    values = values_of(predictions, metrics)
    draws = Draws(predictions.groups)
    intervals, _ = confusion_intervals(draws, predictions.truth, predictions.predicted, len(predictions.classes))
    return {"n": len(predictions.ids), **metric_values(values, intervals)}


def metric_values(values: dict[str, float], intervals: dict[str, Interval]) -> dict[str, Any]:
    """Return metrics and their `intervals` as JSON has them."""
    ends = {name: ends_of(intervals[name]) for name in values}
    return {**{name: none_if_nan(value) for name, value in values.items()}, "intervals": ends}


def none_if_nan(value: float) -> float | None:
    """Return a value as JSON has it, where undefined ones are None."""
    return None if math.isnan(value) else float(value)


def ends_of(interval: Interval) -> list[float] | None:
    """Return the ends of an interval as JSON has them."""
    return None if math.isnan(interval[0]) else list(interval)


def _most_confused(confusion: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    """Return the pairs of classes that are confused most often, most often first."""
    errors = confusion - np.diag(np.diagonal(confusion))
    pairs = []
    for i, j in zip(*np.nonzero(errors), strict=True):
        counts = {"count": int(errors[i, j]), "share": errors[i, j] / confusion[i].sum()}
        pairs.append({"label": classes[i], "predicted": classes[j], **counts})
    return sorted(pairs, key=lambda pair: (-pair["count"], -pair["share"]))[:_LISTED_CONFUSIONS]


def _most_confident_errors(predictions: Predictions) -> list[dict[str, Any]]:
    """Return the errors of highest confidence."""
    errors = np.flatnonzero(~predictions.correct)
    ranked = errors[np.argsort(-predictions.confidence[errors], kind="stable")[:_LISTED_ERRORS]]
    return [
        {
            "id": predictions.ids[row],
            "path": predictions.paths[row],
            "label": predictions.classes[predictions.truth[row]],
            "predicted": predictions.classes[predictions.predicted[row]],
            "confidence": float(predictions.confidence[row]),
        }
        for row in ranked
    ]


def _confidence(predictions: Predictions) -> dict[str, Any]:
    """Return the report's `temperature`, None where images have several, `reliability`, `coverage` and `before`.

    The last is of the probabilities before they were scaled, or None where none was.
    """
    temperatures = np.unique(predictions.temperature)
    before = None
    if (temperatures != 1).any():
        probabilities = scaled(predictions.probabilities, 1 / predictions.temperature)
        unscaled = Scores(predictions.truth, predictions.predicted, probabilities)
        before = {
            **values_of(unscaled, [METRICS.get("log_loss"), METRICS.get("calibration_error")]),
            "reliability": reliability(unscaled.confidence, unscaled.correct),
        }
    return {
        "temperature": float(temperatures[0]) if len(temperatures) == 1 else None,
        "reliability": reliability(predictions.confidence, predictions.correct),
        "coverage": coverage_table(predictions.confidence, predictions.correct),
        "before": before,
    }


def _threshold(predictions: Predictions, threshold: float | None, target: float | None) -> dict[str, Any]:
    """Count predictions below a threshold of confidence, of all classes and of each, and summarise the rest.

    Without a threshold, it is the one that leaves the target error, on validation where there are such predictions.
    """
    chosen_on = "given"
    if threshold is None:
        assert target is not None
        basis = predictions.validation or predictions
        chosen_on = "validation" if predictions.validation else predictions.split
        threshold = threshold_for(basis.confidence, basis.correct, target)
        if threshold is None:
            least = float(risk_coverage(basis.confidence, basis.correct)[2].min())
            raise InputError(f"--target-error {target:g}: no threshold reaches it (the least error is {least:.3g})")
    certain = predictions.confidence >= threshold
    count = len(predictions.classes)
    support = np.bincount(predictions.truth, minlength=count).tolist()
    uncertain = np.bincount(predictions.truth[~certain], minlength=count).tolist()
    return {
        "value": threshold,
        "chosen_on": chosen_on,
        "uncertain": sum(uncertain),
        "classes": {
            name: {"support": support[index], "uncertain": uncertain[index]}
            for index, name in enumerate(predictions.classes)
        },
        "rest": summary_of(predictions.subset(certain)) if certain.any() else None,
    }
