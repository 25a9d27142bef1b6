"""A report on a terminal of 80 columns or more, or in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from wbctool import PURPOSE
from wbctool.evaluation.document import Block, Document, Images, Items, Matrix, Paragraph, Section, Table

_STYLES = {"plain": "", "soft": "dim", "strong": "bold", "warning": "yellow"}
_SHORT_HEADERS = {"specificity": "spec.", "images": "n"}  # where the terminal is narrow
_NAME_WIDTH = 14  # to which names of rows may be folded


def print_document(document: Document, console: Console) -> None:
    """Print a report; pictures, and the cards that repeat the first table, are left out."""
    console.print(Text(document.title, style="bold"))
    _print_blocks(document.blocks, console)
    console.print()
    console.print(Text(PURPOSE, style="dim"))


def _print_blocks(blocks: Iterable[Block], console: Console) -> None:
    for block in blocks:
        if isinstance(block, Paragraph):
            console.print(Text(block.text, style=_STYLES[block.style]))
        elif isinstance(block, Items):
            for line in block.lines:
                console.print(Text(f"    {line}", style="dim" if block.folded else ""), soft_wrap=block.folded)
        elif isinstance(block, Images):
            for image in block.images:
                line = f"  {image.confidence:.3f}  {image.label} as {image.predicted}  {image.path}"
                console.print(Text(line), soft_wrap=True)
        elif isinstance(block, Matrix):
            _print_matrix(block, console)
        elif isinstance(block, Table):
            console.print(rich_table(block, console.width), crop=False)
        elif isinstance(block, Section):
            console.print()
            console.print(Text(block.title, style="bold"))
            _print_blocks(block.blocks, console)


def rich_table(table: Table, width: int) -> RichTable:
    """Lay out a table in a width; where it does not fit, details give way, but no value is cut."""
    headers = list(table.columns)
    rows = [[[cell.text, *([cell.detail] if cell.detail else [])] for cell in row] for row in table.cells]
    if _least_width(headers, rows, table.ruled) > width:
        headers = [_SHORT_HEADERS.get(name, name) for name in headers]
    for column in range(len(headers) - 1, 0, -1):
        if _least_width(headers, rows, table.ruled) > width:
            for row in rows:
                row[column] = row[column][:1]
    drawn = RichTable(
        box=box.SIMPLE_HEAD if table.ruled else None,
        show_header=any(headers),
        show_edge=table.ruled,
        pad_edge=table.ruled,
        padding=(0, 1 if table.ruled else 2, 0, 0),
        header_style="" if table.ruled else "dim",
    )
    if (least := _least_width(headers, rows, table.ruled)) > width:
        drawn.width = least
    for index, name in enumerate(headers):
        drawn.add_column(name, justify="right" if index else "left", overflow="fold", no_wrap=bool(index))
    for r, row in enumerate(rows):
        cells = [Text(cell[0], style="bold" if (r, c) in table.bold else "") for c, cell in enumerate(row)]
        for text, cell in zip(cells, row, strict=True):
            text.append("".join(f" {detail}" for detail in cell[1:]), style="dim")
        drawn.add_row(*cells)
    return drawn


def _least_width(headers: Sequence[str], rows: Sequence[Sequence[Sequence[str]]], ruled: bool) -> int:
    columns = zip(([name] for name in headers), *rows, strict=True)
    widths = [max(len(line) for cell in column for line in " ".join(cell).split("\n")) for column in columns]
    return min(widths[0], _NAME_WIDTH) + sum(widths[1:]) + 2 * (len(widths) - 1) + 3 * ruled


def _print_matrix(matrix: Matrix, console: Console) -> None:
    """Print a confusion matrix with shaded cells; long class names are replaced by numbers in the header."""
    classes = list(matrix.classes)
    count_width = max(len(str(count)) for row in matrix.counts for count in row)
    width = max(count_width, max(map(len, classes))) + 1
    headers = names = classes
    if max(map(len, names)) + width * len(classes) > console.width:
        headers = [str(number) for number in range(1, len(classes) + 1)]
        width = max(count_width, len(headers[-1])) + 2
        room = max(8, console.width - width * len(classes) - 5)
        names = [f"{number:>2} {_cut(name, room)}" for number, name in enumerate(classes, 1)]
    margin = max(map(len, names)) + 1
    if margin + width * len(classes) > console.width:
        console.print(Text("It is wider than this terminal; --json and --html have it.", style="dim"))
        return
    console.print(Text("Rows: truth. Columns: predicted.", style="dim"))
    console.print(Text(" " * margin + "".join(name.rjust(width) for name in headers)))
    for name, row in zip(names, matrix.counts, strict=True):
        line = Text(name.ljust(margin))
        total = sum(row) or 1
        for count in row:
            line.append((str(count) if count else "·").rjust(width), style=_shade(count / total))
        console.print(line)


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _shade(fraction: float) -> str:
    if fraction == 0:
        return "dim"
    level = 236 + min(17, int(fraction * 17))
    return f"{'black' if level > 245 else 'white'} on color({level})"
