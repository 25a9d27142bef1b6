"""The few figures that are given of a part of the images."""

from __future__ import annotations

import math
from typing import Any

from wbctool.evaluation.predictions import Predictions
from wbctool.statistics.intervals import Draws, Interval, of_confusion
from wbctool.statistics.metrics import confusion_matrix, figures_of

BRIEF = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "mcc": "MCC"}


def brief(predictions: Predictions) -> dict[str, Any]:
    """`n`, the figures of `BRIEF`, and their `intervals`, over one image or more; NaN is null."""
    count = len(predictions.classes)
    values = figures_of(confusion_matrix(predictions.truth, predictions.predicted, count))
    main, _ = of_confusion(Draws(predictions.groups), predictions.truth, predictions.predicted, count)
    return {
        "n": len(predictions.ids),
        **{name: known(float(values[name])) for name in BRIEF},
        "intervals": {name: both(main[name]) for name in BRIEF},
    }


def known(value: float) -> float | None:
    """A figure as JSON has it: NaN is null."""
    return None if math.isnan(value) else value


def both(interval: Interval) -> list[float] | None:
    """The ends of an interval; null where there is none."""
    return None if math.isnan(interval[0]) else list(interval)


def with_range(value: float | None, interval: list[float] | None, digits: int = 4) -> tuple[str, str]:
    """A figure and its interval, as tables show them."""
    shown = "undefined" if value is None else f"{value:.{digits}f}"
    return shown, "–" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"
