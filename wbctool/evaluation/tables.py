"""Tables for papers and spreadsheets: Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

FORMATS = ("table", "markdown", "latex", "csv")
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"±": r"$\pm$", "–": "--"}


@dataclass
class Table:
    """Text in rows and columns.

    Attributes:
        columns: their names; the first column names the rows.
        rows: of cells.
        bold: (row, column) of the cells that stand out.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: set[tuple[int, int]] = field(default_factory=set)


def written(table: Table, form: str) -> str:
    """The table as `markdown`, `latex` (needs booktabs) or `csv`, which has no bold."""
    return {"markdown": _markdown, "latex": _latex, "csv": _csv}[form](table)


def _markdown(table: Table) -> str:
    def cell(text: str) -> str:
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = [
        line([f"**{cell(text)}**" if (r, c) in table.bold else cell(text) for c, text in enumerate(row)])
        for r, row in enumerate(table.rows)
    ]
    rule = line(["---", *["---:"] * (len(table.columns) - 1)])
    return "\n".join([line([cell(name) for name in table.columns]), rule, *rows]) + "\n"


def _latex(table: Table) -> str:
    def cell(text: str) -> str:
        return "".join(_LATEX.get(character, character) for character in text)

    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(cells)} \\\\"

    rows = [
        line([f"\\textbf{{{cell(text)}}}" if (r, c) in table.bold else cell(text) for c, text in enumerate(row)])
        for r, row in enumerate(table.rows)
    ]
    head = f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}"
    columns = line([cell(name) for name in table.columns])
    return "\n".join([head, "\\toprule", columns, "\\midrule", *rows, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _csv(table: Table) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return stream.getvalue()
