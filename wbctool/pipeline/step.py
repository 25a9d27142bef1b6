"""Steps: what a command does with each record, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbctool.errors import DONE, SOME_FAILED, UsageProblem
from wbctool.pipeline.parameters import Parameters, parameter
from wbctool.records import Record

# A record on its way into a step, with the name of its output.
Named = tuple[Record, str]
BatchWork = Callable[[Sequence[Named]], list[list[Record]]]


PANEL = "Running"


class Execution(Parameters):
    """How a step is run; none of it changes the output, except `shard`, which selects a part of it."""

    jobs: int = parameter(0, "Workers; 0 for all cores.", low=0, panel=PANEL)
    shard: str | None = parameter(None, "Do part I of N (from 1).", form="I/N", panel=PANEL)
    scheduler: str | None = parameter(None, "Dask cluster, tcp://….", form="ADDRESS", panel=PANEL)
    overwrite: bool = parameter(False, "Replace an earlier output.", panel=PANEL)
    skip_bad: bool = parameter(False, "Exit 0 although inputs failed.", panel=PANEL)
    quiet: bool = parameter(False, "No progress, no notes.", panel=PANEL, flags=("--quiet", "-q"))
    json_: bool = parameter(False, "JSON on stdout, on a terminal too.", panel=PANEL, flags=("--json",))
    prints: bool = parameter(False, "Print records on stdout, as a command does.", option=False)


def accept_any(_record: Record) -> None:
    """`check` of a step that takes all records; a named function, as steps are sent to processes."""


def always_unchanged(_old: Record, _record: Record) -> bool:
    """`unchanged` of a step whose output depends on files and settings only."""
    return True


@dataclass(frozen=True)
class _AnyStep:
    """What steps of both kinds declare.

    Attributes:
        name: the subcommand.
        settings: all that decides the output; a rerun with other settings is refused.
        expected: ids of the records that one input gives, found without reading its image. May raise `ImageError`.
        compose: the output record, from the input record and what `work` made.
        made: keys of what `work` returns.
        unit: what is counted.
        origin: key of an output record that names the input's image, where that is not its `source` or `path`.
        reserved: subfolders of the output that the step uses itself.
        plans: the records name what is to be made, and their `path` where; there are no input images.
        check: refuses the first input where it is of the wrong type; raises `InputError`.
        unchanged: whether an old output record still fits its input record, apart from the files of both.
    """

    name: str
    settings: dict[str, Any]
    expected: Callable[[Record], set[str]]
    compose: Callable[[Record, Record], Record]
    made: Sequence[str]
    unit: str = "images"
    origin: str | None = None
    reserved: tuple[str, ...] = ()
    plans: bool = False
    check: Callable[[Record], None] = accept_any
    unchanged: Callable[[Record, Record], bool] = always_unchanged


@dataclass(frozen=True, kw_only=True)
class Step(_AnyStep):
    """A step that processes one record at a time, in worker processes.

    Attributes:
        work: makes the files of one input, from its record, the output folder and the output name; returns what it
            made, one mapping per output record.
    """

    work: Callable[[Record, Path, str], list[Record]]


@dataclass(frozen=True, kw_only=True)
class BatchStep(_AnyStep):
    """A step that processes batches of records in this process, on a device.

    Batches are cut by position in the input. A batch that is not finished is computed as a whole, so that a resumed
    command gives the same bytes.

    Attributes:
        batch_size: records per batch.
        session: opens what `work` needs, such as threads, and gives the function that processes a batch: for each
            record what it made, or one error record.
    """

    batch_size: int
    session: Callable[[], AbstractContextManager[BatchWork]]


@dataclass
class Outcome:
    """Counts of a finished step; `exit_code` follows from them.

    Attributes:
        inputs: input records.
        records: output records, without errors.
        failed: inputs that have an error record.
        reused: inputs that an earlier command had finished.
        skip_bad: whether failures leave the exit code 0.
    """

    inputs: int = 0
    records: int = 0
    failed: int = 0
    reused: int = 0
    skip_bad: bool = False

    @property
    def exit_code(self) -> int:
        return SOME_FAILED if self.failed and not self.skip_bad else DONE


def same_id(record: Record) -> set[str]:
    """`expected` of a step that makes one record of each input."""
    return {record["id"]}


def added(record: Record, made: Record) -> Record:
    """`compose` of a step that adds to its input's record."""
    return {**record, **made}


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """`2/8` as (2, 8).

    Raises:
        UsageProblem: it is not i/n with 1 ≤ i ≤ n.
    """
    if text is None:
        return None
    first, slash, second = text.partition("/")
    if not (slash and text.isascii() and first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise UsageProblem(f"--shard {text}: write it as i/n with i from 1 to n, such as 2/8")
    return int(first), int(second)
