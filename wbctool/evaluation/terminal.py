"""A report on a terminal of 80 columns or more, or in a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from wbctool import PURPOSE
from wbctool.evaluation.document import Block, Cell, Errors, Items, Matrix, Paragraph, Section, Table

_STYLES = {"plain": "", "soft": "dim", "strong": "bold", "warning": "yellow"}
_SHORT_HEADERS = {"specificity": "spec.", "images": "n"}  # where the terminal is narrow
_NAME_WIDTH = 14  # to which names of rows may be folded


def print_document(document: Section, console: Console) -> None:
    """Print a report without its pictures."""
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
        elif isinstance(block, Errors):
            for image in block.images:
                line = f"{image['confidence']:.3f}  {image['label']} as {image['predicted']}  {image['path']}"
                console.print(Text(f"    {line}"), soft_wrap=True)
        elif isinstance(block, Matrix):
            _print_matrix(block, console)
        elif isinstance(block, Table):
            _print_table(block, console)
        elif isinstance(block, Section):
            console.print()
            console.print(Text(block.title, style="bold"))
            _print_blocks(block.blocks, console)


def _print_table(table: Table, console: Console) -> None:
    """Print a table; where it does not fit, details and folders of names give way, but no value is cut."""
    headers, rows, width = list(table.columns), table.cells, console.width
    if table.ruled:
        folder, rows = _fit_names(headers, rows, width)
        if folder:
            console.print(Text(f"in {folder}"))
    if _least_width(headers, rows) > width:
        headers = [_SHORT_HEADERS.get(name, name) for name in headers]
    for column in reversed(range(1, len(headers))):
        if _least_width(headers, rows) > width:
            for row in rows:
                row[column] = Cell(row[column].text)
    drawn = RichTable(
        box=box.SIMPLE_HEAD if table.ruled else None,
        pad_edge=table.ruled,
        padding=(0, 1 if table.ruled else 2, 0, 0),
        header_style="" if table.ruled else "dim",
    )
    if (least := _least_width(headers, rows) + 3 * table.ruled) > width:
        drawn.width = least
    for index, name in enumerate(headers):
        drawn.add_column(name, justify="right" if index else "left", overflow="fold", no_wrap=bool(index))
    for r, row in enumerate(rows):
        texts = [Text(cell.text, "bold" if (r, c) in table.bold else "") for c, cell in enumerate(row)]
        drawn.add_row(*(text.append(f" {cell.detail}".rstrip(), "dim") for text, cell in zip(texts, row, strict=True)))
    console.print(drawn, crop=False)


def _least_width(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> int:
    """Return the width that a table needs when names of rows are folded."""
    first, *others = _column_widths(headers, rows)
    return min(first, _NAME_WIDTH) + sum(others) + 2 * len(others)


def _column_widths(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[int]:
    columns = zip(map(Cell, headers), *rows, strict=True)
    return [
        max(len(line) for cell in column for line in f"{cell.text} {cell.detail}".rstrip().split("\n"))
        for column in columns
    ]


def _fit_names(headers: Sequence[str], rows: list[list[Cell]], width: int) -> tuple[str, list[list[Cell]]]:
    """Make room for names: deviations go below their means, and a common folder, which is returned, is left out."""
    names = [row[0].text for row in rows]

    def room() -> int:
        return width - 3 - sum(each + 2 for each in _column_widths(headers, rows)[1:])

    if max(map(len, names)) - len(_common_folder(names)) > room():
        rows = [[Cell(cell.text.replace(" ± ", "\n±")) for cell in row] for row in rows]
    folder = _common_folder(names) if max(map(len, names)) > room() else ""
    return folder, [[Cell(row[0].text.removeprefix(folder)), *row[1:]] for row in rows]


def _common_folder(names: Sequence[str]) -> str:
    """Return the folder that all names lie in, with its last slash, or nothing."""
    if len({name.startswith("/") for name in names}) > 1:
        return ""
    common = os.path.commonpath([name.rpartition("/")[0] for name in names])
    return f"{common.rstrip('/')}/" if common else ""


def _print_matrix(matrix: Matrix, console: Console) -> None:
    """Print a confusion matrix with shaded cells; long class names are replaced by numbers in the header."""
    names = headers = list(matrix.classes)
    count_width = max(len(str(count)) for row in matrix.counts for count in row)
    width = max(count_width, max(map(len, names))) + 1
    if max(map(len, names)) + width * len(names) > console.width:
        headers = [str(number) for number in range(1, len(names) + 1)]
        width = max(count_width, len(headers[-1])) + 2
        room = max(8, console.width - width * len(names) - 5)
        cut = [name if len(name) <= room else f"{name[: room - 1]}…" for name in names]
        names = [f"{number:>2} {name}" for number, name in enumerate(cut, 1)]
    margin = max(map(len, names)) + 1
    if margin + width * len(names) > console.width:
        console.print(Text("It is wider than this terminal; --json and --html have it.", style="dim"))
        return
    console.print(Text("Rows: truth. Columns: predicted.", style="dim"))
    console.print(Text(" " * margin + "".join(name.rjust(width) for name in headers)))
    for name, row in zip(names, matrix.counts, strict=True):
        line = Text(name.ljust(margin))
        for count in row:
            level = 236 + min(17, int(count / (sum(row) or 1) * 17))
            shade = f"{'black' if level > 245 else 'white'} on color({level})" if count else "dim"
            line.append((str(count) if count else "·").rjust(width), style=shade)
        console.print(line)
