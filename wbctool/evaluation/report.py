"""The report: a JSON object, or tables for a terminal of 80 columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wbctool import PURPOSE
from wbctool.console import table
from wbctool.evaluation import tables
from wbctool.evaluation.agreement import MEASURES, POOR
from wbctool.evaluation.audit import print_audit
from wbctool.evaluation.brief import both, known, with_range
from wbctool.evaluation.confidence import chosen_threshold, of_confidence, of_threshold, plain_table, print_confidence
from wbctool.evaluation.predictions import Predictions
from wbctool.statistics import intervals
from wbctool.statistics.metrics import confusion_matrix, per_class, summary

SCHEMA = "wbctool.evaluation/1"
NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "macro_specificity": "macro specificity",
    "weighted_precision": "weighted precision",
    "weighted_recall": "weighted recall",
    "weighted_f1": "weighted F1",
    "weighted_specificity": "weighted specificity",
    "macro_auc": "macro AUC (one vs rest)",
    "macro_average_precision": "macro average precision",
    "mcc": "MCC",
    "kappa": "Cohen's kappa",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}
_PER_CLASS = ("precision", "recall", "specificity", "f1")
_WORST = 10  # images that are named, and half as many confused pairs


def to_json(predictions: Predictions, threshold: float | None = None, target: float | None = None) -> dict[str, Any]:
    """All figures as one flat object, with `intervals`, `classes` and `confusion` beside them; NaN is null.

    Args:
        predictions: of one run.
        threshold: of confidence; what lies under it is set apart.
        target: an error for which that threshold is sought.

    Raises:
        InputError: no threshold reaches the target.
    """
    split_off = None
    if threshold is not None or target is not None:
        split_off = of_threshold(predictions, *chosen_threshold(predictions, threshold, target))
    truth, predicted, probabilities = predictions.truth, predictions.predicted, predictions.probabilities
    count = len(predictions.classes)
    figures = summary(truth, predicted, probabilities)
    confusion = confusion_matrix(truth, predicted, count)
    draws = intervals.Draws(predictions.groups)
    main, every = intervals.of_confusion(draws, truth, predicted, count)
    main |= intervals.of_scores(draws, truth, predicted, probabilities, figures)
    each = per_class(confusion)
    return {
        "schema": SCHEMA,
        "run": predictions.run,
        "n": len(truth),
        "groups": draws.count,
        "split": predictions.split,
        **{name: known(figures[name]) for name in NAMES},
        "intervals": {name: both(main[name]) for name in NAMES},
        "classes": {
            name: {
                **{key: column[index].item() for key, column in each.items()},
                "intervals": {key: both(every[key][index]) for key in _PER_CLASS},
            }
            for index, name in enumerate(predictions.classes)
        },
        "confusion": {"classes": predictions.classes, "matrix": confusion.tolist()},
        "confused": _confused(confusion, predictions.classes),
        "wrongest": _wrongest(predictions),
        **of_confidence(predictions),
        "threshold": split_off,
        "left_out": predictions.notes,
        "composites": predictions.composites,
    }


def _confused(confusion: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for one another, most often first."""
    wrong = confusion - np.diag(np.diagonal(confusion))
    found = [
        {
            "label": classes[i],
            "predicted": classes[j],
            "count": int(wrong[i, j]),
            "share": wrong[i, j] / confusion[i].sum(),
        }
        for i, j in zip(*np.nonzero(wrong), strict=True)
    ]
    return sorted(found, key=lambda pair: (-pair["count"], -pair["share"]))[: _WORST // 2]


def _wrongest(predictions: Predictions) -> list[dict[str, Any]]:
    """The errors made with most confidence."""
    wrong = np.flatnonzero(predictions.truth != predictions.predicted)
    confidence = predictions.confidence[wrong]
    return [
        {
            "id": predictions.ids[row],
            "path": predictions.paths[row],
            "label": predictions.classes[predictions.truth[row]],
            "predicted": predictions.classes[predictions.predicted[row]],
            "confidence": float(share),
        }
        for share, row in sorted(zip(confidence, wrong, strict=True), key=lambda pair: -pair[0])[:_WORST]
    ]


def composites_line(report: dict[str, Any]) -> str:
    """That a report is not of real images alone."""
    return (
        f"{report['composites']:,} of {report['n']:,} images are composites: the figures are not of real images alone"
    )


def figure_table(report: dict[str, Any]) -> tables.Table:
    """The figures with their intervals, for papers and spreadsheets."""

    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.6f}"

    rows = [[NAMES[key], text(report[key]), *map(text, report["intervals"][key] or (None, None))] for key in NAMES]
    return tables.Table(["figure", "value", "low", "high"], rows)


def print_report(report: dict[str, Any], source: str, console: Console) -> None:
    """Print the figures, the table of classes, the shaded confusion matrix and what went wrong."""
    which = {"all": "all predictions", "val": "validation"}.get(report["split"], report["split"])
    console.print(Text(f"{source}: {report['n']:,} images ({which})", style="bold"))
    for line in report["left_out"]:
        console.print(Text(f"left out: {line}", style="yellow"))
    if report["composites"]:
        console.print(Text(composites_line(report), style="yellow"))
    figures = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    figures.add_column()
    figures.add_column(justify="right")
    figures.add_column(justify="right", style="dim")
    for key, name in NAMES.items():
        figures.add_row(name, *with_range(report[key], report["intervals"][key]))
    console.print()
    console.print(figures)
    units = f"{report['groups']:,} groups" if report["groups"] < report["n"] else "images"
    told = f"Right: 95 % intervals, by a bootstrap over {units}."
    if report["groups"] == 1:
        told = "No intervals: all images are of one group, which says nothing of others."
    console.print(Text(told, style="dim"))
    console.print()
    console.print(_class_table(report["classes"]))
    console.print()
    _print_confusion(report["confusion"], console)
    _print_errors(report, console)
    print_confidence(report, console)
    if "audit" in report:
        print_audit(report["audit"], report, console)
    console.print(Text(PURPOSE, style="dim"))


def _class_table(classes: dict[str, dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("class", overflow="fold")
    for name in ("n", "precision", "recall", "F1", "spec."):
        table.add_column(name, justify="right", no_wrap=True)
    for label, row in classes.items():
        cells = [
            _with_range(row[key], row["intervals"][key]) if row["support"] or row["intervals"][key] else "–"
            for key in ("precision", "recall", "f1")
        ]
        shown = [f"{row['support']:,}", *cells, f"{row['specificity']:.3f}"]
        table.add_row(Text(label), *shown, style="" if row["support"] else "dim")
    return table


def _with_range(value: float, interval: list[float] | None) -> str:
    return f"{value:.3f}" if interval is None else f"{value:.3f} {interval[0]:.2f}–{interval[1]:.2f}"


def _print_errors(report: dict[str, Any], console: Console) -> None:
    if not report["confused"]:
        return
    console.print(Text("Most confused", style="bold"))
    for pair in report["confused"]:
        console.print(Text(f"  {pair['label']} as {pair['predicted']}: {pair['count']:,} ({pair['share']:.0%})"))
    console.print()
    console.print(Text("Wrong with most confidence", style="bold"))
    for image in report["wrongest"]:
        line = f"  {image['confidence']:.3f}  {image['label']} as {image['predicted']}  {image['path']}"
        console.print(Text(line), soft_wrap=True)
    console.print()


def _print_confusion(confusion: dict[str, Any], console: Console) -> None:
    """Rows are true classes, columns predicted ones; shade is the share of the row."""
    classes, matrix = confusion["classes"], confusion["matrix"]
    count_width = max(len(str(count)) for row in matrix for count in row)
    width = max(count_width, max(map(len, classes))) + 1
    columns = rows = list(classes)
    if max(map(len, rows)) + width * len(classes) > console.width:  # long names: columns by number
        columns = [str(number) for number in range(1, len(classes) + 1)]
        width = max(count_width, len(columns[-1])) + 2
        room = max(8, console.width - width * len(classes) - 5)
        rows = [f"{number:>2} {_cut(name, room)}" for number, name in enumerate(classes, 1)]
    margin = max(map(len, rows)) + 1
    if margin + width * len(classes) > console.width:
        console.print(Text("The confusion matrix is wider than this terminal; --json holds it.", style="dim"))
        return
    console.print(Text("Confusion (row: truth, column: predicted)", style="bold"))
    console.print(Text(" " * margin + "".join(name.rjust(width) for name in columns)))
    for name, row in zip(rows, matrix, strict=True):
        line = Text(name.ljust(margin))
        total = sum(row) or 1
        for count in row:
            line.append((str(count) if count else "·").rjust(width), style=_shade(count / total))
        console.print(line)
    console.print()


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _shade(share: float) -> str:
    if share == 0:
        return "dim"
    level = 236 + min(17, int(share * 17))
    return f"{'black' if level > 245 else 'white'} on color({level})"


def print_agreement(reports: list[dict[str, Any]], parts: list[str]) -> None:
    """Print masks against truth: a table for each part, methods side by side; of one set, its worst images."""
    for part in parts:
        rows = []
        for report in reports:
            shown = [f"{report[f'{part}_{measure}']:.4f}" for measure in MEASURES]
            spent = "–" if report["seconds"] is None else f"{report['seconds']:.4f}"
            poor = f"{report[f'{part}_under_{POOR}']:.1%}"
            rows.append((report["source"], report["method"] or "–", f"{report['n']:,}", *shown, poor, spent))
        columns = ("masks", "method", "images", "Dice", "IoU", "prec.", "recall", f"< {POOR}", "s/image")
        table(f"{part}: mean over images", columns, rows)
    if len(reports) == 1:
        worst = [(part, one["id"], f"{one['dice']:.4f}") for part in parts for one in reports[0]["worst"][part][:5]]
        table("Worst images", ("part", "image", "Dice"), worst)
