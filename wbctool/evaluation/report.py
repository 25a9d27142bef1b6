"""The report: a JSON object, or tables for a terminal of 80 columns."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wbctool.console import table
from wbctool.evaluation.agreement import MEASURES, POOR
from wbctool.evaluation.metrics import confusion_matrix, per_class, summary
from wbctool.evaluation.predictions import Predictions

SCHEMA = "wbctool.evaluation/1"
_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "macro_specificity": "macro specificity",
    "macro_auc": "macro AUC (one vs rest)",
    "mcc": "MCC",
}


def to_json(predictions: Predictions) -> dict[str, Any]:
    """All figures as one flat object, with `classes` and `confusion` beside them; NaN is null."""
    figures = summary(predictions.truth, predictions.predicted, predictions.probabilities)
    confusion = confusion_matrix(predictions.truth, predictions.predicted, len(predictions.classes))
    each = per_class(confusion)
    return {
        "schema": SCHEMA,
        "n": len(predictions.truth),
        "split": predictions.split,
        **{name: None if math.isnan(value) else value for name, value in figures.items()},
        "classes": {
            name: {key: column[index].item() for key, column in each.items()}
            for index, name in enumerate(predictions.classes)
        },
        "confusion": {"classes": predictions.classes, "matrix": confusion.tolist()},
        "left_out": predictions.notes,
    }


def print_report(report: dict[str, Any], source: str, console: Console) -> None:
    """Print the figures, the table of classes and the shaded confusion matrix."""
    which = {"all": "all predictions", "val": "validation"}.get(report["split"], report["split"])
    console.print(Text(f"{source}: {report['n']:,} images ({which})", style="bold"))
    for line in report["left_out"]:
        console.print(Text(f"left out: {line}", style="yellow"))
    figures = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    figures.add_column()
    figures.add_column(justify="right")
    for key, name in _NAMES.items():
        value = report[key]
        figures.add_row(name, "undefined" if value is None else f"{value:.4f}")
    console.print()
    console.print(figures)
    console.print()
    console.print(_class_table(report["classes"]))
    _print_confusion(report["confusion"], console)
    console.print(Text("For research; not a medical device.", style="dim"))


def _class_table(classes: dict[str, dict[str, float]]) -> Table:
    from rich import box

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", overflow="fold")
    for name in ("support", "precision", "recall", "specificity", "F1"):
        table.add_column(name, justify="right")
    for label, row in classes.items():
        cells = [f"{row[key]:.3f}" for key in ("precision", "recall", "specificity", "f1")]
        table.add_row(Text(label), f"{row['support']:,}", *cells, style="" if row["support"] else "dim")
    return table


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
