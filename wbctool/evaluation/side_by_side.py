"""The table of several runs: means over folds and repeats, the best in bold, ranks, tests against one of them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from wbctool import PURPOSE
from wbctool.errors import InputError
from wbctool.evaluation.comparison import Candidate, against
from wbctool.evaluation.report import NAMES
from wbctool.evaluation.tables import Table
from wbctool.statistics.comparison import holm, ranks

if TYPE_CHECKING:
    from rich.table import Table as Drawn

LOWER_IS_BETTER = ("log_loss", "calibration_error")
_PAPER = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_auc", "mcc")
_TERMINAL = ("accuracy", "macro_f1", "macro_auc", "mcc")
_SHORT = {
    "accuracy": "acc.",
    "macro_precision": "prec.",
    "macro_recall": "recall",
    "macro_f1": "F1",
    "macro_auc": "AUC",
    "mcc": "MCC",
}


def compared(candidates: Sequence[Candidate], baseline: Candidate | None) -> list[dict[str, Any]]:
    """What `--json` prints of each candidate, in their order.

    Tests are against the baseline, else against the candidate of the highest accuracy.

    Raises:
        InputError: two cannot be paired, and a baseline was asked for.
    """
    standing = ranks([math.nan if one.of_others else one.mean("accuracy") for one in candidates])
    reference = baseline or candidates[standing.index(1)]
    tests = [
        None if one is reference or one.of_others else _test(one, reference, required=baseline is not None)
        for one in candidates
    ]
    corrected = holm([np.nan if test is None else test["p"] for test in tests])
    made = []
    for one, rank, test, p in zip(candidates, standing, tests, corrected, strict=True):
        row: dict[str, Any] = {"run": one.name, "runs": len(one.members), "rank": None if one.of_others else rank}
        row["n"] = sum(len(member.truth) for member in one.members)
        row |= {name: _known(one.mean(name)) for name in NAMES}
        row["deviations"] = {name: _known(one.deviation(name)) for name in NAMES}
        if test:
            row["against"] = {
                "run": reference.name,
                "images": test["images"],
                **{
                    figure: {"difference": test[figure][0], "interval": [_known(end) for end in test[figure][1]]}
                    for figure in ("accuracy", "macro_f1")
                },
                "relative": _relative(one.mean("accuracy"), reference.mean("accuracy")),
                "p": _known(test["p"]),
                "p_corrected": _known(p),
            }
        made.append(row)
    return made


def _test(one: Candidate, reference: Candidate, required: bool) -> dict[str, Any] | None:
    try:
        return against(one, reference)
    except InputError:
        if required:
            raise
        return None  # tested on other images: side by side all the same


def _relative(value: float, reference: float) -> float | None:
    return value / reference - 1 if reference else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def table_of(rows: Sequence[dict[str, Any]], form: str) -> Table:
    """The rows for a terminal of 80 columns, a paper, or a spreadsheet, which takes every figure in full."""
    if form == "csv":
        return _full(rows)
    figures = _TERMINAL if form == "table" else _PAPER
    tested = any("against" in row for row in rows)
    last = ["difference", "p"] if tested else []
    columns = ["run", *(_SHORT[name] for name in figures), *last, "rank"]
    bold = {(row, 1 + figures.index(name)) for name in figures for row in _best(rows, name)}
    return Table(columns, [_row(row, figures, tested) for row in rows], bold)


def _best(rows: Sequence[dict[str, Any]], name: str) -> list[int]:
    values = [math.nan if None in (row[name], row["rank"]) else row[name] for row in rows]
    placed = ranks(values, name in LOWER_IS_BETTER)
    return [index for index, place in enumerate(placed) if place == 1 and not math.isnan(values[index])]


def _row(row: dict[str, Any], figures: Sequence[str], tested: bool) -> list[str]:
    cells = [row["run"]]
    for name in figures:
        value, spread = row[name], row["deviations"][name]
        cells.append("–" if value is None else f"{value:.4f}" if spread is None else f"{value:.3f} ± {spread:.3f}")
    if tested:
        test = row.get("against")
        cells.append(f"{100 * test['accuracy']['difference']:+.1f}" if test else "–")
        p = test and test["p_corrected"]
        cells.append("–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}")
    return [*cells, str(row["rank"] or "–")]


def _full(rows: Sequence[dict[str, Any]]) -> Table:
    def text(value: float | None) -> str:
        return "" if value is None else repr(value)

    columns = ["run", "runs", "images", "rank"]
    columns += [column for name in NAMES for column in (name, f"{name}_sd")]
    columns += ["against", "difference", "low", "high", "relative", "p", "p_corrected"]
    made = []
    for row in rows:
        test = row.get("against")
        cells = [row["run"], str(row["runs"]), str(row["n"]), str(row["rank"] or "")]
        cells += [text(value) for name in NAMES for value in (row[name], row["deviations"][name])]
        if test:
            accuracy = test["accuracy"]
            ends = [accuracy["difference"], *accuracy["interval"], test["relative"], test["p"], test["p_corrected"]]
            cells += [test["run"], *map(text, ends)]
        made.append([*cells, *[""] * (len(columns) - len(cells))])
    return Table(columns, made)


def _common_folder(names: Sequence[str], room: int) -> str:
    """The folder that all lie in, with its last slash, where their names are too long to show."""
    folders = [name.rpartition("/")[0] for name in names]
    if max(map(len, names)) <= room or len({name.startswith("/") for name in names}) > 1:
        return ""
    common = os.path.commonpath(folders)
    return f"{common.rstrip('/')}/" if common else ""


def _widths(table: Table) -> list[int]:
    """Of the columns, as the longest line in each asks for."""
    columns = zip(table.columns, *table.rows, strict=True)
    return [max(len(line) for cell in column for line in cell.splitlines()) + 2 for column in columns]


def _drawn(table: Table, title: str, width: int) -> Drawn:
    """The table for a console so wide; where its figures need more, it takes it, and nothing is cut."""
    from rich import box
    from rich.table import Table as Drawn

    drawn = Drawn(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", padding=(0, 1, 0, 0))
    first, *others = _widths(table)
    if (least := 1 + min(first, 14) + sum(others)) > width:
        drawn.width = least
    for index, name in enumerate(table.columns):
        drawn.add_column(name, justify="right" if index else "left", overflow="fold", no_wrap=bool(index))
    for r, cells in enumerate(table.rows):
        drawn.add_row(*[Text(cell, style="bold" if (r, c) in table.bold else "") for c, cell in enumerate(cells)])
    return drawn


def print_side_by_side(rows: Sequence[dict[str, Any]], split: str, console: Console) -> None:
    """Print the table, and what its columns are."""
    names = [row["run"] for row in rows]
    table = table_of(rows, "table")
    shortest = max(map(len, names)) - len(_common_folder(names, 0))
    if sum(_widths(table)[1:]) + shortest + 3 > console.width:  # deviations below their means leave room for names
        table.rows = [[cell.replace(" ± ", "\n±") for cell in cells] for cells in table.rows]
    folder = _common_folder(names, console.width - 3 - sum(_widths(table)[1:]))
    table.rows = [[cells[0].removeprefix(folder), *cells[1:]] for cells in table.rows]
    which = {"all": "all predictions", "val": "validation"}.get(split, split)
    title = f"{sum(row['rank'] is not None for row in rows)} runs, {which}; macro averages"
    title += f"\nin {folder}" if folder else ""
    console.print(_drawn(table, title, console.width), crop=False)
    tests = [row["against"] for row in rows if "against" in row]
    if tests:
        console.print(
            Text(
                f"difference: points of accuracy against {tests[0]['run']} on the same images; "
                "p: McNemar's test, corrected for their number (Holm).",
                style="dim",
            )
        )
        for row in rows:
            if "against" in row and row["against"]["accuracy"]["interval"][0] is not None:
                low, high = (100 * end for end in row["against"]["accuracy"]["interval"])
                shown = 100 * row["against"]["accuracy"]["difference"]
                console.print(
                    Text(f"  {row['run']}: {shown:+.1f}, 95 % interval {low:+.1f} to {high:+.1f}", style="dim")
                )
    if any(row["rank"] and "against" not in row for row in rows) and len(tests) + 1 < len(rows):
        text = "Runs without a difference were tested on other images: ranks compare the sets as much as the runs."
        console.print(Text(text, style="yellow"))
    console.print(Text(PURPOSE, style="dim"))
