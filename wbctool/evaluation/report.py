"""The report of one run: a JSON object with every metric."""

from __future__ import annotations

from typing import Any

import numpy as np

from wbctool.evaluation.confidence import choose_threshold, confidence_of, threshold_report
from wbctool.evaluation.predictions import Predictions
from wbctool.evaluation.subsets import ends_of, none_if_nan
from wbctool.statistics.confusion import CLASS_METRICS, ConfusionCounts, confusion_matrix
from wbctool.statistics.intervals import Draws, Interval, confusion_intervals, score_intervals
from wbctool.statistics.summary import values_of

SCHEMA = "wbctool.evaluation/1"
_LISTED_ERRORS, _LISTED_CONFUSIONS = 10, 5


def report_of(
    predictions: Predictions, threshold: float | None = None, target_error: float | None = None
) -> dict[str, Any]:
    """Compute the report: one flat object of metrics, with `intervals`, `classes` and `confusion` beside them.

    Args:
        predictions: of one run.
        threshold: of confidence, 0 to 1; predictions below it are set apart.
        target_error: the error for which that threshold is sought.

    Returns:
        As `evaluate --json` prints it; undefined values are None.

    Raises:
        InputError: no threshold reaches the target.
    """
    uncertain = None
    if threshold is not None or target_error is not None:
        uncertain = threshold_report(predictions, *choose_threshold(predictions, threshold, target_error))
    count = len(predictions.classes)
    values = values_of(predictions)
    draws = Draws(predictions.groups)
    intervals, class_intervals = confusion_intervals(draws, predictions.truth, predictions.predicted, count)
    intervals |= score_intervals(draws, predictions, values)
    confusion = confusion_matrix(predictions.truth, predictions.predicted, count)
    return {
        "schema": SCHEMA,
        "run": predictions.run,
        "n": len(predictions.truth),
        "groups": draws.count,
        "split": predictions.split,
        **{name: none_if_nan(value) for name, value in values.items()},
        "intervals": {name: ends_of(intervals[name]) for name in values},
        "classes": _class_reports(predictions.classes, confusion, class_intervals),
        "confusion": {"classes": predictions.classes, "matrix": confusion.tolist()},
        "confused": _most_confused(confusion, predictions.classes),
        "wrongest": _most_confident_errors(predictions),
        **confidence_of(predictions),
        "threshold": uncertain,
        "left_out": predictions.notes,
        "composites": predictions.composites,
    }


def _class_reports(
    classes: list[str], confusion: np.ndarray, intervals: dict[str, list[Interval]]
) -> dict[str, dict[str, Any]]:
    counts = ConfusionCounts(confusion)
    return {
        name: {
            "support": int(counts.support[index]),
            **{key: float(counts.per_class[key][index]) for key in CLASS_METRICS},
            "intervals": {key: ends_of(intervals[key][index]) for key in CLASS_METRICS},
        }
        for index, name in enumerate(classes)
    }


def _most_confused(confusion: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    """Return the pairs of classes that are confused most often, most often first."""
    errors = confusion - np.diag(np.diagonal(confusion))
    pairs = [
        {
            "label": classes[i],
            "predicted": classes[j],
            "count": int(errors[i, j]),
            "share": errors[i, j] / confusion[i].sum(),
        }
        for i, j in zip(*np.nonzero(errors), strict=True)
    ]
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
