"""What people see: progress and notes on stderr, tables on stdout."""

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
    """Rich ends the process with 1 where its pipe is closed; here that is the end of the command, no fault."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def stdout_console() -> Console:
    """A console for tables: 80 columns wide in a pipe, so that a report is the same everywhere."""
    return _Pipe(width=None if sys.stdout.isatty() else 80, highlight=False, soft_wrap=False)


def records_wanted(json: bool) -> bool:
    """Whether stdout takes records: always in a pipe, on a terminal with --json."""
    return json or not sys.stdout.isatty()


def emit(record: Record) -> None:
    """Print one record on stdout at once, so that the next command in a pipe can start."""
    sys.stdout.write(to_line(record) + "\n")
    sys.stdout.flush()


def emit_while_read(record: Record) -> bool:
    """`emit`, for a command that makes more than its records; False once nobody reads them."""
    try:
        emit(record)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        note("nobody reads the records any more; the output is made all the same")
        return False
    return True


def note(text: str) -> None:
    """A line for people, on stderr."""
    print(f"wbctool: {text}", file=sys.stderr)


def warn(text: str) -> None:
    """A warning line, on stderr."""
    note(f"warning: {text}")


@contextmanager
def loading(quiet: bool) -> Iterator[None]:
    """Says on a terminal that torch is being loaded, which takes seconds, and takes it away again."""
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

    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="right" if index and numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*[Text(str(value)) for value in row])
    console = stdout_console()
    console.print(Text(title, style="bold"), soft_wrap=True)  # a title of rich's would be as narrow as its table
    console.print(drawn)


class Progress:
    """A count with its rate on stderr: a moving line on a terminal, a line now and then elsewhere.

    Args:
        what: is being done.
        unit: of what is counted.
        quiet: show nothing.
        total: how many there are; with it the time left is shown.
        done: how many were done before.
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
        """Take the moving line away, so that another can be printed."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def step(self, failed: bool = False, detail: str = "", count: int = 1) -> None:
        """Count one more, or several."""
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
    """Such as `45 s`, `12 min` or `3 h 20 min`."""
    minutes, hours = round(seconds / 60), int(round(seconds / 60) // 60)
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    return f"{hours} h {minutes - 60 * hours} min" if hours else f"{minutes} min"
