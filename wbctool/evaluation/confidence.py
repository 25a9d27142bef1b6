"""What the report says of confidence: reliability before and after scaling, coverage, and a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wbctool.errors import InputError
from wbctool.evaluation.brief import BRIEF, brief, with_range
from wbctool.evaluation.predictions import Predictions
from wbctool.statistics.calibration import coverage_table, reliability, risk, scaled, threshold_for
from wbctool.statistics.metrics import score_figures


def of_confidence(predictions: Predictions) -> dict[str, Any]:
    """`temperature`, `reliability`, `coverage`, and, of scaled probabilities, `before` with the same of those before.

    `temperature` is null where images have several.
    """
    known = np.unique(predictions.temperature)
    made: dict[str, Any] = {
        "temperature": float(known[0]) if len(known) == 1 else None,
        "reliability": reliability(predictions.confidence, predictions.right),
        "coverage": coverage_table(predictions.confidence, predictions.right),
        "before": None,
    }
    if (known != 1).any():
        before = scaled(predictions.probabilities, 1 / predictions.temperature)
        figures = score_figures(predictions.truth, predictions.predicted, before)
        confidence = before[np.arange(len(before)), predictions.predicted]
        made["before"] = {
            "log_loss": figures["log_loss"],
            "calibration_error": figures["calibration_error"],
            "reliability": reliability(confidence, predictions.right),
        }
    return made


def chosen_threshold(predictions: Predictions, threshold: float | None, target: float | None) -> tuple[float, str]:
    """The threshold, and what it was chosen on: `given`, `validation` or the split that is evaluated.

    Raises:
        InputError: no threshold reaches the target.
    """
    if threshold is not None:
        return threshold, "given"
    assert target is not None
    held = predictions.validation or predictions
    found = threshold_for(held.confidence, held.right, target)
    if found is None:
        least = float(risk(held.confidence, held.right)[2].min())
        raise InputError(f"--target-error {target:g}: no threshold reaches it (the least error is {least:.3g})")
    return found, "validation" if predictions.validation else predictions.split


def of_threshold(predictions: Predictions, threshold: float, chosen_on: str) -> dict[str, Any]:
    """How many predictions are uncertain, of all and of each class, and the figures of the rest."""
    sure = predictions.confidence >= threshold
    count = len(predictions.classes)
    support = np.bincount(predictions.truth, minlength=count)
    under = np.bincount(predictions.truth[~sure], minlength=count)
    made: dict[str, Any] = {
        "value": threshold,
        "chosen_on": chosen_on,
        "uncertain": int((~sure).sum()),
        "classes": {
            name: {"support": int(support[index]), "uncertain": int(under[index])}
            for index, name in enumerate(predictions.classes)
        },
        "rest": None,
    }
    if sure.any():
        made["rest"] = brief(predictions.at(sure))
    return made


def print_confidence(report: dict[str, Any], console: Console) -> None:
    """Print the reliability, the coverages and what the threshold does."""
    before, after = report["before"], report["reliability"]
    title = "Confidence"
    if before and report["temperature"]:
        title += f" (temperature {report['temperature']:g})"
    console.print(Text(title, style="bold"))
    drawn = plain_table()
    halves = [before["reliability"], after] if before else [after]
    drawn.add_column("between")
    for when in ("before scaling", "after scaling") if before else ("",):
        for name in ("images", "said", "right"):
            drawn.add_column(f"{when if name == 'images' else ''}\n{name}".lstrip("\n"), justify="right")
    by_bin = [{(row["above"], row["to"]): row for row in half} for half in halves]
    for ends in sorted({ends for half in by_bin for ends in half}):
        cells = [f"{ends[0]:.2f} and {ends[1]:.2f}"]
        for half in by_bin:
            row = half.get(ends)
            cells += [f"{row['n']:,}", f"{row['confidence']:.3f}", f"{row['accuracy']:.3f}"] if row else ["", "", ""]
        drawn.add_row(*cells)
    console.print(drawn)
    if before:
        for name, text in (("calibration_error", "calibration error"), ("log_loss", "log loss")):
            console.print(Text(f"{text}: {before[name]:.4f} before scaling, {report[name]:.4f} after"))
    console.print()
    console.print(Text("Coverage against error", style="bold"))
    drawn = plain_table()
    drawn.add_column("the surest")
    for row in report["coverage"]:
        drawn.add_column(f"{row['coverage']:.0%}", justify="right")
    drawn.add_row("error", *(f"{row['error']:.2%}" for row in report["coverage"]))
    drawn.add_row("threshold", *(f"{row['threshold']:.3f}" for row in report["coverage"]))
    console.print(drawn)
    console.print()
    if report["threshold"]:
        _print_threshold(report["threshold"], report["n"], console)


def _print_threshold(threshold: dict[str, Any], count: int, console: Console) -> None:
    chosen = {"given": "", "validation": ", chosen on validation"}
    where = chosen.get(
        threshold["chosen_on"], f", chosen on the very images it is measured on ({threshold['chosen_on']})"
    )
    console.print(Text(f"Threshold {threshold['value']:.4g}{where}", style="bold"))
    console.print(Text(f"uncertain: {threshold['uncertain']:,} of {count:,} ({threshold['uncertain'] / count:.1%})"))
    drawn = plain_table()
    drawn.add_column("class", overflow="fold")
    drawn.add_column("uncertain", justify="right")
    drawn.add_column("of", justify="right")
    drawn.add_column("", justify="right")
    for name, row in threshold["classes"].items():
        share = f"{row['uncertain'] / row['support']:.1%}" if row["support"] else "–"
        drawn.add_row(Text(name), f"{row['uncertain']:,}", f"{row['support']:,}", share)
    console.print(drawn)
    console.print()
    rest = threshold["rest"]
    if rest is None:
        console.print(Text("No prediction is left."))
        return
    console.print(Text(f"The rest: {rest['n']:,} images"))
    drawn = plain_table(show_header=False)
    for justify in ("left", "right", "right"):
        drawn.add_column(justify=justify)
    for key, name in BRIEF.items():
        drawn.add_row(name, *with_range(rest[key], rest["intervals"][key]))
    console.print(drawn)
    console.print()


def plain_table(show_header: bool = True) -> Table:
    """A table without lines."""
    return Table(box=None, show_header=show_header, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
