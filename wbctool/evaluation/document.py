"""A report as data: sections of text, tables and pictures, which the terminal and the HTML page both render."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("table", "markdown", "latex", "csv")
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"±": r"$\pm$", "–": "--"}


@dataclass(frozen=True)
class Paragraph:
    """Text in a style."""

    text: str
    style: Literal["plain", "soft", "strong", "warning"] = "plain"


@dataclass(frozen=True)
class Cell:
    """A cell of a table; its detail, such as an interval, stands beside it; a page shows its hint on hovering."""

    text: str
    detail: str = ""
    hint: str = ""


@dataclass
class Table:
    """Rows of cells or texts, those at `bold` (row, column) in bold; a `ruled` one compares runs, named in column 0."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    bold: set[tuple[int, int]] = field(default_factory=set)
    ruled: bool = False

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, with a `Cell` for each text."""
        return [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Items:
    """A list; a page shows `folded` ones, which may hold long paths, on a click."""

    lines: Sequence[str]
    folded: bool = False


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: rows are true classes, columns predicted ones."""

    classes: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Errors:
    """Images that were classified incorrectly, and by id the paths of pictures that explain predictions."""

    images: Sequence[Mapping[str, Any]]
    explanations: Mapping[str, str]


@dataclass(frozen=True)
class Pictures:
    """Plots side by side, or one over the whole width. A terminal leaves them out."""

    figures: Sequence[Figure]
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """Blocks under a title, which may be a whole report; a page shows `folded` ones on a click."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


Block = Paragraph | Table | Items | Matrix | Errors | Pictures | Section


@dataclass(frozen=True)
class Result:
    """What an evaluation returns: JSON objects, the same for people, and for papers as a table of some form."""

    reports: list[dict[str, Any]]
    document: Section
    table: Callable[[str], Table] | None = None


def value_text(value: float | None) -> str:
    """Return a value as tables show it."""
    return "undefined" if value is None else f"{value:.4f}"


def exact_text(value: float | None) -> str:
    """Return a value for papers and spreadsheets; nothing where it is undefined."""
    return "" if value is None else f"{value:.6f}"


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
