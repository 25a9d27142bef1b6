"""Tables for papers and spreadsheets: Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from wbctool.evaluation.document import Table

FORMATS = ("table", "markdown", "latex", "csv")
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"±": r"$\pm$", "–": "--"}


def written(table: Table, form: str) -> str:
    """Return a table as `markdown`, `latex` (needs booktabs) or `csv`, which has no bold."""
    return {"markdown": _markdown, "latex": _latex, "csv": _csv}[form](table)


def _bold(table: Table, escape: Callable[[str], str], mark: str) -> list[list[str]]:
    """Return the escaped text of the cells, bold ones within a mark such as `**{}**`."""
    return [
        [mark.replace("{}", escape(cell.text)) if (r, c) in table.bold else escape(cell.text) for c, cell in cells]
        for r, cells in ((r, enumerate(row)) for r, row in enumerate(table.cells))
    ]


def _markdown(table: Table) -> str:
    def escape(text: str) -> str:
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")

    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    lines = [[escape(name) for name in table.columns], rule, *_bold(table, escape, "**{}**")]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _latex(table: Table) -> str:
    def escape(text: str) -> str:
        return "".join(_LATEX.get(character, character) for character in text)

    lines = [[escape(name) for name in table.columns], *_bold(table, escape, "\\textbf{{}}")]
    columns, *rows = (f"{' & '.join(cells)} \\\\" for cells in lines)
    head = f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}"
    return "\n".join([head, "\\toprule", columns, "\\midrule", *rows, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _csv(table: Table) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([[cell.text for cell in row] for row in table.cells])
    return stream.getvalue()
