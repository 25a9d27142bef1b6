"""The plots of a report, as PNG and SVG; the same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wbctool.evaluation.predictions import Predictions
from wbctool.evaluation.report import NAMES
from wbctool.statistics.metrics import areas, curves, steps
from wbctool.statistics.plots import STYLE, new_figure

if TYPE_CHECKING:
    pass

_AXES = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_auc", "mcc")
_COLOURS = matplotlib.color_sequences["tab20"]


def plots_of(predictions: Predictions, report: dict[str, Any]) -> dict[str, Figure]:
    """The plots of one run, by name.

    Args:
        predictions: of the run.
        report: what `report.to_json` gave of them.
    """
    with matplotlib.rc_context(STYLE):
        return {
            "confusion": _confusion(report["confusion"]),
            "roc": _roc(predictions),
            "precision-recall": _precision_recall(predictions),
            "reliability": _reliability(report),
            "coverage": _coverage(report),
        }


def parallel_coordinates(rows: Sequence[dict[str, Any]]) -> Figure:
    """Runs as lines over figures, each axis from its worst to its best run.

    Args:
        rows: what `side_by_side.compared` gave.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7, 3.4 + 0.18 * len(rows))
        axes = figure.subplots()
        values = np.array([[math.nan if row[name] is None else row[name] for name in _AXES] for row in rows])
        low = np.nanmin(values, axis=0, initial=math.inf, where=~np.isnan(values))
        high = np.nanmax(values, axis=0, initial=-math.inf, where=~np.isnan(values))
        wide = np.where(high > low, high - low, 1)
        for index, (row, line) in enumerate(zip(rows, (values - low) / wide, strict=True)):
            axes.plot(range(len(_AXES)), line, "o-", color=_COLOURS[index % len(_COLOURS)], label=_plain(row["run"]))
        for index in range(len(_AXES)):
            axes.axvline(index, color="0.85", zorder=0)
            for place, value, align in ((-0.09, low[index], "top"), (1.09, high[index], "bottom")):
                shown = f"{value:.3f}" if np.isfinite(value) else "–"
                axes.text(index, place, shown, ha="center", va=align, fontsize=8, color="0.4")
        axes.set(xticks=range(len(_AXES)), ylim=(-0.2, 1.2), yticks=[])
        axes.set_xticklabels([NAMES[name].replace(" (one vs rest)", "") for name in _AXES], rotation=20, ha="right")
        axes.spines["left"].set_visible(False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", frameon=False, fontsize=8)
        return figure


def _plain(name: str) -> str:
    name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return f" {name}" if name.startswith("_") else name  # a leading underscore hides a legend entry


def _confusion(confusion: dict[str, Any]) -> Figure:
    classes, matrix = confusion["classes"], np.array(confusion["matrix"])
    side = max(3.6, 0.42 * len(classes) + 1.6)
    figure = new_figure(side + 0.6, side)
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=colour, fontsize=8)
    numbers = range(len(classes))
    axes.set(xticks=numbers, yticks=numbers, xlabel="predicted", ylabel="truth")
    axes.set_xticklabels(map(_plain, classes), rotation=45, ha="right")
    axes.set_yticklabels(map(_plain, classes))
    return figure


def _per_class(predictions: Predictions, x: str, y: str, score: int, axes: Axes) -> None:
    for index, name in enumerate(predictions.classes):
        positive = predictions.truth == index
        if positive.all() or not positive.any():
            continue
        scores = predictions.probabilities[:, index]
        value = float(areas(*steps(positive, scores)[:2])[score])
        drawn = curves(positive, scores)
        label = _plain(f"{name} {value:.3f}")
        way = "steps-pre" if y == "precision" else "default"
        axes.plot(drawn[x], drawn[y], drawstyle=way, color=_COLOURS[index % len(_COLOURS)], label=label, linewidth=1.2)


def _roc(predictions: Predictions) -> Figure:
    figure = new_figure(4.6, 4 + 0.1 * len(predictions.classes))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
    _per_class(predictions, "fpr", "tpr", 0, axes)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal", title="ROC, AUC one vs rest")
    return _with_legend(figure, axes)


def _precision_recall(predictions: Predictions) -> Figure:
    figure = new_figure(4.6, 4 + 0.1 * len(predictions.classes))
    axes = figure.subplots()
    _per_class(predictions, "recall", "precision", 1, axes)
    axes.set(xlabel="recall", ylabel="precision", aspect="equal", ylim=(-0.03, 1.03), title="Average precision")
    return _with_legend(figure, axes)


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    if axes.get_legend_handles_labels()[0]:
        shown = axes.get_legend_handles_labels()
        figure.legend(*shown, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def _reliability(report: dict[str, Any]) -> Figure:
    figure = new_figure(4.6, 4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
    drawn = [("after scaling" if report["before"] else "measured", report["reliability"], "tab:blue")]
    if report["before"]:
        drawn.insert(0, ("before scaling", report["before"]["reliability"], "tab:orange"))
    most = max(row["n"] for _, rows, _ in drawn for row in rows)
    for name, rows, colour in drawn:
        said, right = [row["confidence"] for row in rows], [row["accuracy"] for row in rows]
        axes.plot(said, right, "-", color=colour, linewidth=1, label=name)
        axes.scatter(said, right, s=[8 + 80 * row["n"] / most for row in rows], color=colour, alpha=0.7)
    axes.set(xlabel="confidence", ylabel="accuracy", aspect="equal", xlim=(0, 1.02), ylim=(-0.02, 1.02))
    axes.set_title("Reliability (area: images)")
    axes.legend(frameon=False, loc="upper left")
    return figure


def _coverage(report: dict[str, Any]) -> Figure:
    figure = new_figure(4.6, 4)
    axes = figure.subplots()
    rows = report["coverage"]
    axes.plot([row["coverage"] for row in rows], [row["error"] for row in rows], ".-")
    for row in rows:
        place = (row["coverage"], row["error"])
        axes.annotate(
            f"≥ {row['threshold']:.2f}", place, xytext=(-4, 5), textcoords="offset points", ha="right", fontsize=7
        )
    axes.set(
        xlabel="coverage: share of images that are answered", ylabel="error among them", title="Coverage against error"
    )
    axes.set_ylim(bottom=0)
    return figure
