"""Terminal output: progress and notes on stderr, records and tables on stdout."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console

from wbctool.records import Record, to_line


class _Pipe(Console):
    """A console that raises when its pipe is closed; rich would end the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def stdout_console() -> Console:
    """Return a console for tables: 80 columns wide in a pipe, so that a report is the same everywhere."""
    return _Pipe(width=None if sys.stdout.isatty() else 80, highlight=False, soft_wrap=False)


def records_wanted(json: bool) -> bool:
    """Return whether records go to stdout: always in a pipe, on a terminal with --json."""
    return json or not sys.stdout.isatty()


def emit(record: Record) -> None:
    """Print one record on stdout at once, so that the next command in a pipe can start."""
    sys.stdout.write(to_line(record) + "\n")
    sys.stdout.flush()


def emit_all(records: Iterable[Record]) -> None:
    """Print records on stdout."""
    for record in records:
        emit(record)


def emit_while_read(record: Record) -> bool:
    """Print one record, for a command that also writes files; return False once the reader has closed the pipe."""
    try:
        emit(record)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        note("nobody reads the records any more; the output files are still written")
        return False
    return True


def note(text: str) -> None:
    """Print a message line on stderr."""
    print(f"wbctool: {text}", file=sys.stderr)


def warn(text: str) -> None:
    """Print a warning line on stderr."""
    note(f"warning: {text}")


@contextmanager
def loading(quiet: bool) -> Iterator[None]:
    """Show on a terminal that torch is being loaded, which takes seconds, and clear the line afterwards."""
    live = sys.stderr.isatty() and not quiet
    if live:
        print("wbctool: loading torch …", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: bool = True) -> None:
    """Print a table on stdout; with `numbers` all columns but the first are right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rich_table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        rich_table.add_column(column, justify="right" if index and numbers else "left", overflow="fold")
    for row in rows:
        rich_table.add_row(*[Text(str(value)) for value in row])
    console = stdout_console()
    console.print(Text(title, style="bold"), soft_wrap=True)  # rich wraps a table's own title to its width
    console.print(rich_table)


class Progress:
    """A count with its rate on stderr: an updated line on a terminal, a new line every 10 seconds elsewhere.

    Args:
        what: name of the task.
        unit: of the count, such as `images`.
        quiet: show nothing.
        total: the final count, if known; the remaining time is then shown too.
        done: the initial count.
    """

    interval = 10.0

    def __init__(self, what: str, unit: str, quiet: bool, total: int | None = None, done: int = 0) -> None:
        self.what, self.unit, self.total = what, unit, total
        self.done = self._before = done
        self.failed = 0
        self.quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._start = time.monotonic()
        self._shown = self._start

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: Any, _t: TracebackType | None) -> None:
        self.clear()

    def clear(self) -> None:
        """Clear the line, so that another can be printed."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def step(self, failed: bool = False, detail: str = "", count: int = 1) -> None:
        """Add to the count and show it, at most ten times a second."""
        self.done += count
        self.failed += failed
        now = time.monotonic()
        if self.quiet or now - self._shown < (0.1 if self._live else self.interval):
            return
        self._shown = now
        rate = (self.done - self._before) / max(now - self._start, 1e-9)
        of_total = f"/{self.total:,}" if self.total else ""
        text = f"{self.what}: {self.done:,}{of_total} {self.unit}, {rate:.1f}/s"
        if self.total:
            text += f", {duration((self.total - self.done) / rate)} left"
        if self.failed:
            text += f", {self.failed:,} failed"
        if detail:
            text += f", {detail}"
        if self._live:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        else:
            note(text)


def duration(seconds: float) -> str:
    """Return a duration as text, such as `45 s`, `12 min` or `3 h 20 min`."""
    minutes, hours = round(seconds / 60), int(round(seconds / 60) // 60)
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    return f"{hours} h {minutes - 60 * hours} min" if hours else f"{minutes} min"
