"""The table of several runs: means over folds and repeats, the best in bold, ranks, tests against one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from wbctool.evaluation.document import Block, Items, Paragraph, Table
from wbctool.statistics.comparison import ranks
from wbctool.statistics.metrics import Metric


def comparison_table(rows: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> Table:
    """Return a row for each run, with its rank and its test.

    Args:
        rows: as `comparison.compare` returns them.
        metrics: the columns.
    """
    tested = any("against" in row for row in rows)
    columns = ["run", *(metric.column or metric.title for metric in metrics)]
    columns += ["difference", "p", "rank"] if tested else ["rank"]
    bold = {(row, 1 + column) for column, metric in enumerate(metrics) for row in _best(rows, metric)}
    return Table(columns, [_row(row, metrics, tested) for row in rows], bold, ruled=True)


def exact_table(rows: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> Table:
    """Return every value in full, for a spreadsheet; arguments as of `comparison_table`."""
    headers = ["run", "runs", "images", "rank"]
    headers += [header for metric in metrics for header in (metric.name, f"{metric.name}_sd")]
    headers += ["against", "difference", "low", "high", "relative", "p", "p_corrected"]
    cells = [[*_exact_values(row, metrics), *_exact_test(row.get("against"))] for row in rows]
    return Table(headers, cells)


def comparison_blocks(rows: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> list[Block]:
    """Lay out the comparison, and say what its columns are; arguments as of `comparison_table`."""
    blocks: list[Block] = [comparison_table(rows, metrics)]
    tests = [(row["run"], row["against"]) for row in rows if "against" in row]
    if tests:
        text = f"difference: points of accuracy against {tests[0][1]['run']} on the same images; p: McNemar's test,"
        blocks.append(Paragraph(f"{text} corrected for their number (Holm).", "soft"))
        blocks.append(Items([line for run, test in tests if (line := _interval_line(run, test["accuracy"]))]))
    if any(row["rank"] and "against" not in row for row in rows) and len(tests) + 1 < len(rows):
        text = "Runs without a difference were tested on other images: ranks compare the sets as much as the runs."
        blocks.append(Paragraph(text, "warning"))
    return blocks


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
