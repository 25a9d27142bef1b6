"""The page of a report, which stands alone, and its plots; the same values give the same bytes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from wbctool import PURPOSE, __version__
from wbctool.errors import ImageError
from wbctool.evaluation.document import Section
from wbctool.evaluation.predictions import Predictions
from wbctool.imaging.files import read_image
from wbctool.statistics.counts import curve_areas, curves, threshold_steps
from wbctool.statistics.metrics import Metric
from wbctool.statistics.plots import STYLE, as_svg, new_figure

_SIDE = 300  # pixels of a thumbnail, for screens of twice the density
_COLOURS = matplotlib.color_sequences["tab20"]


def page_of(document: Section) -> str:
    """Render a report as HTML, the same for the same document, with `page.html.j2`, which escapes every text."""
    loader = jinja2.PackageLoader("wbctool.evaluation", "")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["svg"] = lambda figure: _data_uri("svg+xml", as_svg(figure))
    environment.filters["thumbnail"] = _thumbnail_uri
    return environment.get_template("page.html.j2").render(document=document, version=__version__, purpose=PURPOSE)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _thumbnail_uri(path: str) -> str:
    try:
        image = read_image(path)
    except (ImageError, OSError):
        return ""
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return _data_uri("jpeg", data.tobytes())


def plots_of(predictions: Predictions, report: dict[str, Any]) -> dict[str, Figure]:
    """Draw the plots of one run and its report, by name."""
    roc = {"xlabel": "false positive rate", "ylabel": "true positive rate", "title": "ROC, AUC one vs rest"}
    precision = {"xlabel": "recall", "ylabel": "precision", "title": "Average precision", "ylim": (-0.03, 1.03)}
    with matplotlib.rc_context(STYLE):
        return {
            "confusion": _confusion_matrix(report["confusion"]),
            "roc": _class_curves(predictions, "fpr", "tpr", 0, **roc),
            "precision-recall": _class_curves(predictions, "recall", "precision", 1, **precision),
            "reliability": _reliability_diagram(report),
            "coverage": _risk_coverage_curve(report),
        }


def parallel_coordinates(rows: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> Figure:
    """Draw runs, as `comparison.compare` returns them, as lines over metrics from the worst below to the best above."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(7, 3.4 + 0.18 * len(rows))
        values = np.array([[row[metric.name] for metric in metrics] for row in rows], np.float64)
        signs = np.array([1 if metric.higher_is_better else -1 for metric in metrics])
        known = ~np.isnan(values)
        worst = np.min(signs * values, axis=0, initial=np.inf, where=known)
        best = np.max(signs * values, axis=0, initial=-np.inf, where=known)
        heights = (signs * values - worst) / np.where(best > worst, best - worst, 1)
        numbers = range(len(metrics))
        for index, (row, line) in enumerate(zip(rows, heights, strict=True)):
            axes.plot(numbers, line, "o-", color=_COLOURS[index % len(_COLOURS)], label=_plain(row["run"]))
        for index in numbers:
            axes.axvline(index, color="0.85", zorder=0)
            for height, value, align in ((-0.09, worst[index], "top"), (1.09, best[index], "bottom")):
                text = f"{signs[index] * value:.3f}" if np.isfinite(value) else "–"
                axes.text(index, height, text, ha="center", va=align, fontsize=8, color="0.4")
        axes.set(xticks=numbers, ylim=(-0.2, 1.2), yticks=[])
        names = [metric.title.replace(" (one vs rest)", "") for metric in metrics]
        axes.set_xticklabels(names, rotation=20, ha="right")
        axes.spines["left"].set_visible(False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", frameon=False, fontsize=8)
        return figure


def _plain(name: str) -> str:
    """Return a name that the font and the legend can show."""
    name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return f" {name}" if name.startswith("_") else name  # a leading underscore hides a legend entry


def _confusion_matrix(confusion: dict[str, Any]) -> Figure:
    classes, matrix = confusion["classes"], np.array(confusion["matrix"])
    side = max(3.6, 0.42 * len(classes) + 1.6)
    figure, axes = new_figure(side + 0.6, side)
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if fractions[row, column] > 0.5 else "black"
        axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=colour, fontsize=8)
    numbers = range(len(classes))
    axes.set(xticks=numbers, yticks=numbers, xlabel="predicted", ylabel="truth")
    axes.set_xticklabels(map(_plain, classes), rotation=45, ha="right")
    axes.set_yticklabels(map(_plain, classes))
    return figure


def _class_curves(predictions: Predictions, x: str, y: str, area: int, **labels: Any) -> Figure:
    """Draw a curve of each class, with its area, by its index in `curve_areas`, in the legend."""
    figure, axes = new_figure(4.6, 4 + 0.1 * len(predictions.classes))
    if x == "fpr":
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
    for index, name in enumerate(predictions.classes):
        positive, scores = predictions.truth == index, predictions.probabilities[:, index]
        if positive.all() or not positive.any():
            continue
        value = float(curve_areas(*threshold_steps(positive, scores)[:2])[area])
        points = curves(positive, scores)
        style = "steps-pre" if y == "precision" else "default"
        colour, label = _COLOURS[index % len(_COLOURS)], _plain(f"{name} {value:.3f}")
        axes.plot(points[x], points[y], drawstyle=style, color=colour, label=label, linewidth=1.2)
    axes.set(aspect="equal", **labels)
    entries = axes.get_legend_handles_labels()
    if entries[0]:
        figure.legend(*entries, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def _reliability_diagram(report: dict[str, Any]) -> Figure:
    figure, axes = new_figure(4.6, 4)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
    series = [("after scaling" if report["before"] else "measured", report["reliability"], "tab:blue")]
    if report["before"]:
        series.insert(0, ("before scaling", report["before"]["reliability"], "tab:orange"))
    most = max(row["n"] for _, rows, _ in series for row in rows)
    for name, rows, colour in series:
        confidence, accuracy = [row["confidence"] for row in rows], [row["accuracy"] for row in rows]
        axes.plot(confidence, accuracy, "-", color=colour, linewidth=1, label=name)
        axes.scatter(confidence, accuracy, s=[8 + 80 * row["n"] / most for row in rows], color=colour, alpha=0.7)
    axes.set(xlabel="confidence", ylabel="accuracy", aspect="equal", xlim=(0, 1.02), ylim=(-0.02, 1.02))
    axes.set_title("Reliability diagram (area: images)")
    axes.legend(frameon=False, loc="upper left")
    return figure


def _risk_coverage_curve(report: dict[str, Any]) -> Figure:
    figure, axes = new_figure(4.6, 4)
    rows = report["coverage"]
    axes.plot([row["coverage"] for row in rows], [row["error"] for row in rows], ".-")
    for row in rows:
        point = (row["coverage"], row["error"])
        text = f"≥ {row['threshold']:.2f}"
        axes.annotate(text, point, xytext=(-4, 5), textcoords="offset points", ha="right", fontsize=7)
    axes.set(xlabel="coverage: fraction of images classified", ylabel="risk: error among them")
    axes.set_title("Risk–coverage curve")
    axes.set_ylim(bottom=0)
    return figure
