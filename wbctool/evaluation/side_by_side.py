"""The table of several runs: means over folds and repeats, the best in bold, ranks, tests against one of them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wbctool.evaluation.document import Block, Items, Paragraph, Pictures, Table
from wbctool.statistics.comparison import ranks
from wbctool.statistics.metric import Metric
from wbctool.statistics.metrics import METRICS, metrics_in, metrics_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def comparison_table(rows: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> Table:
    """Return a row for each run, with its rank and its test.

    Args:
        rows: as `comparison.compare` returns them.
        metrics: the columns.
    """
    tested = any("against" in row for row in rows)
    columns = ["run", *(metric.header for metric in metrics), *(("difference", "p") if tested else ()), "rank"]
    bold = {(row, 1 + column) for column, metric in enumerate(metrics) for row in _best(rows, metric)}
    return Table(columns, [_row(row, metrics, tested) for row in rows], bold, ruled=True)


def exact_table(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> Table:
    """Return every value in full, for a spreadsheet; arguments as names of metrics, by default all."""
    metrics = [METRICS.get(name) for name in columns] or metrics_of(Metric)
    headers = ["run", "runs", "images", "rank"]
    headers += [header for metric in metrics for header in (metric.name, f"{metric.name}_sd")]
    headers += ["against", "difference", "low", "high", "relative", "p", "p_corrected"]
    cells = [[*_exact_values(row, metrics), *_exact_test(row.get("against"))] for row in rows]
    return Table(headers, cells)


def comparison_blocks(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str] = (),
    width: int | None = None,
    plot: Figure | None = None,
) -> list[Block]:
    """Lay out the comparison, and say what its columns are.

    Args:
        rows: as `comparison.compare` returns them.
        columns: names of the metrics to show; by default those declared for a terminal or, without a width, a paper.
        width: number of characters that the table should fit into.
        plot: of the runs, for a page.
    """
    metrics = metrics_in("paper" if width is None else "terminal", columns)
    table = comparison_table(rows, metrics)
    blocks: list[Block] = []
    if width is not None:
        table, folder = fit_names(table, width)
        if folder:
            blocks.append(Paragraph(f"in {folder}"))
    blocks.append(table)
    tests = [(row["run"], row["against"]) for row in rows if "against" in row]
    if tests:
        text = f"difference: points of accuracy against {tests[0][1]['run']} on the same images; p: McNemar's test,"
        blocks.append(Paragraph(f"{text} corrected for their number (Holm).", "soft"))
        blocks.append(Items([line for run, test in tests if (line := _interval_line(run, test["accuracy"]))]))
    if any(row["rank"] and "against" not in row for row in rows) and len(tests) + 1 < len(rows):
        text = "Runs without a difference were tested on other images: ranks compare the sets as much as the runs."
        blocks.append(Paragraph(text, "warning"))
    return [*blocks, Pictures([plot], wide=True)] if plot else blocks


def fit_names(table: Table, width: int) -> tuple[Table, str]:
    """Make room for long names: deviations go below their means, and a common folder is left out.

    Args:
        table: whose first column holds names of runs.
        width: in characters.

    Returns:
        The table, and the folder that was left out, with its last slash; or nothing.
    """
    rows = [[cell.text for cell in row] for row in table.cells]
    names = [cells[0] for cells in rows]
    shortest = max(map(len, names)) - len(_common_folder(names, 0))
    if _value_width(table.columns, rows) + shortest + 3 > width:
        rows = [[cell.replace(" ± ", "\n±") for cell in cells] for cells in rows]
    folder = _common_folder(names, width - 3 - _value_width(table.columns, rows))
    rows = [[cells[0].removeprefix(folder), *cells[1:]] for cells in rows]
    return Table(table.columns, rows, table.bold, table.ruled), folder


def _value_width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the width of all columns but that of the names."""
    cells = list(zip(columns, *rows, strict=True))[1:]
    return sum(max(len(line) for cell in column for line in cell.splitlines()) + 2 for column in cells)


def _common_folder(names: Sequence[str], room: int) -> str:
    """Return the folder that all names lie in, where they are longer than the room."""
    if max(map(len, names)) <= room or len({name.startswith("/") for name in names}) > 1:
        return ""
    common = os.path.commonpath([name.rpartition("/")[0] for name in names])
    return f"{common.rstrip('/')}/" if common else ""


def _best(rows: Sequence[dict[str, Any]], metric: Metric) -> list[int]:
    values = [math.nan if None in (row[metric.name], row["rank"]) else row[metric.name] for row in rows]
    ranking = ranks(values, lower_is_better=not metric.higher_is_better)
    return [index for index, rank in enumerate(ranking) if rank == 1 and not math.isnan(values[index])]


def _row(row: dict[str, Any], metrics: Sequence[Metric], tested: bool) -> list[str]:
    cells = [row["run"]]
    for metric in metrics:
        value, spread = row[metric.name], row["deviations"][metric.name]
        cells.append("–" if value is None else f"{value:.4f}" if spread is None else f"{value:.3f} ± {spread:.3f}")
    if tested:
        test = row.get("against")
        p = test and test["p_corrected"]
        cells.append(f"{100 * test['accuracy']['difference']:+.1f}" if test else "–")
        cells.append("–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}")
    return [*cells, str(row["rank"] or "–")]


def _interval_line(run: str, accuracy: dict[str, Any]) -> str:
    if accuracy["interval"][0] is None:
        return ""
    low, high = (100 * end for end in accuracy["interval"])
    return f"{run}: {100 * accuracy['difference']:+.1f}, 95 % interval {low:+.1f} to {high:+.1f}"


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)


def _exact_values(row: dict[str, Any], metrics: Sequence[Metric]) -> list[str]:
    values = [value for metric in metrics for value in (row[metric.name], row["deviations"][metric.name])]
    return [row["run"], str(row["runs"]), str(row["n"]), str(row["rank"] or ""), *map(_exact, values)]


def _exact_test(test: dict[str, Any] | None) -> list[str]:
    if test is None:
        return [""] * 7
    accuracy = test["accuracy"]
    values = [accuracy["difference"], *accuracy["interval"], test["relative"], test["p"], test["p_corrected"]]
    return [test["run"], *map(_exact, values)]
