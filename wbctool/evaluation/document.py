"""A report as data: sections of text, tables and pictures, which the terminal and the HTML page both render."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Style = Literal["plain", "soft", "strong", "warning"]


@dataclass(frozen=True)
class Paragraph:
    """Text in a style; a line of it that is a path may be longer than the terminal."""

    text: str
    style: Style = "plain"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it shows.
        detail: shown beside it, smaller, such as an interval.
        hint: explains it where there is a pointer to hover with.
    """

    text: str
    detail: str = ""
    hint: str = ""


@dataclass
class Table:
    """Rows and columns; the first column names the rows.

    Attributes:
        columns: their headers; all empty for a table without.
        rows: of cells, or of their texts.
        bold: (row, column) of the cells that stand out.
        ruled: whether it compares several things, and has a line under its header.
    """

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
    """Lines of a list; `folded` ones open on a click where that is possible."""

    lines: Sequence[str]
    folded: bool = False


@dataclass(frozen=True)
class Cards:
    """A few numbers shown large: title, value and interval. A terminal, whose first table has them, leaves them out."""

    cards: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: rows are true classes, columns predicted ones, shade is the fraction of the row."""

    classes: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Image:
    """An image that was classified incorrectly.

    Attributes:
        path, id, label, predicted: of the image.
        confidence: of the prediction, 0 to 1.
        explanation: path of a picture that explains it, or nothing.
    """

    path: str
    id: str
    label: str
    predicted: str
    confidence: float
    explanation: str = ""


@dataclass(frozen=True)
class Images:
    """Images with their captions: thumbnails on a page, lines on a terminal."""

    images: Sequence[Image]


@dataclass(frozen=True)
class Pictures:
    """Plots side by side, or one over the whole width. A terminal leaves them out."""

    figures: Sequence[Figure]
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """Blocks under a title; `folded` ones open on a click where that is possible."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


Block = Paragraph | Table | Items | Cards | Matrix | Images | Pictures | Section


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    blocks: Sequence[Block]


def value_text(value: float | None, digits: int = 4) -> str:
    """Return a value as tables show it."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def interval_text(interval: Sequence[float] | None, digits: int = 4) -> str:
    """Return an interval as tables show it."""
    return "–" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def exact_text(value: float | None) -> str:
    """Return a value for papers and spreadsheets; nothing where it is undefined."""
    return "" if value is None else f"{value:.6f}"
