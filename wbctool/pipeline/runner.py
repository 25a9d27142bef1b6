"""Folder steps: data-parallel work over records, streamed in input order and resumable."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from wbctool.console import Progress, emit_while_read, note, records_wanted
from wbctool.device import cores
from wbctool.errors import DONE, SOME_FAILED, ImageError, InputError, UsageProblem, WbctoolError
from wbctool.inputs.folders import how_many, names_of, read_inputs
from wbctool.pipeline.names import Names
from wbctool.pipeline.output_folder import OutputFolder
from wbctool.pipeline.parallel import in_processes, on_cluster
from wbctool.records import ERROR, Record, error_record
from wbctool.records.selection import Selection, Tally

# Starting worker processes takes about a second: the first images are done before it is paid.
_SERIAL_START = 16


@dataclass(frozen=True)
class Execution:
    """How a folder step is run.

    Attributes:
        jobs: processes; 0 for one a core.
        shard: `i/n`, to do the i-th of n parts; None for all.
        scheduler: address of a Dask cluster; None for this machine.
        overwrite: whether the output is made anew.
        skip_bad: whether inputs that fail leave the exit code 0.
        quiet: whether progress and notes are left out.
        json: whether records are printed on a terminal, too.
    """

    jobs: int = 0
    shard: str | None = None
    scheduler: str | None = None
    overwrite: bool = False
    skip_bad: bool = False
    quiet: bool = False
    json: bool = False


def _any(_record: Record) -> None:
    """`check` of a step that takes all records; by name, as steps are sent to processes."""


@dataclass(frozen=True)
class Step:
    """One folder step.

    Attributes:
        name: the subcommand.
        settings: what decides its pixels; a rerun with other settings is refused.
        expected: ids of the records that one input will give (cheap; no image is read). May raise
            `ImageError`.
        work: makes the files of one input. Takes the record, the output folder and the output name;
            returns what it made, one mapping per record. Runs in a worker process.
        compose: the record to give out, from the input record and what was made.
        made: the keys of what `work` returns.
        unit: what is counted.
        reserved: folders of the output that the step makes for itself.
        plans: its records name what is to be made, and their `path` where; there are no input images.
        origin: the key that names the input's image in what was made, when `path` names a new one.
        check: refuses inputs of a kind that it cannot work on by the first of them; raises `InputError`.
    """

    name: str
    settings: dict[str, Any]
    expected: Callable[[Record], set[str]]
    work: Callable[[Record, Path, str], list[Record]]
    compose: Callable[[Record, Record], Record]
    made: Sequence[str]
    unit: str = "images"
    origin: str | None = None
    reserved: tuple[str, ...] = ()
    plans: bool = False
    check: Callable[[Record], None] = _any


@dataclass
class Outcome:
    """What a step did; `exit_code` follows from it.

    Attributes:
        inputs: records read.
        records: that came of them, errors not counted.
        failed: inputs that have an error record.
        reused: inputs that had been done before.
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


def run_step(
    step: Step,
    inputs: Sequence[str],
    out: Path,
    selection: Selection,
    execution: Execution,
    on_record: Callable[[Record], None] = lambda record: None,
) -> Outcome:
    """Run a step over inputs into an output folder, giving records out in input order.

    Raises:
        InputError: there is nothing to work on, or an input cannot be used at all.
        UsageProblem: options that cannot be used.
    """
    tally = Tally()
    parse_shard(execution.shard)
    stream = read_inputs(inputs, selection, tally)
    first = next(stream, None)
    if first is None:
        raise InputError(nothing_found(inputs, tally))
    if first["schema"] != ERROR and lies_in(first["path"], out):
        raise UsageProblem(f"-o {out}: holds the input {first['path']}; give another folder, so that nothing is lost")
    if first["schema"] != ERROR:
        step.check(first)
    step = replace(step, settings={**step.settings, "inputs": names_of(inputs)})
    total = None
    if sys.stderr.isatty() and not (execution.quiet or execution.shard or selection.classes):
        total = how_many(inputs)
    return run_records(step, chain([first], stream), out, execution, on_record, tally, total)


def run_records(
    step: Step,
    records: Iterable[Record],
    out: Path,
    execution: Execution,
    on_record: Callable[[Record], None] = lambda record: None,
    tally: Tally | None = None,
    total: int | None = None,
    emits: bool = True,
) -> Outcome:
    """Run a step over records; see `run_step`.

    Args:
        step: the step.
        records: with absolute paths.
        out: the output folder.
        execution: how.
        on_record: is told of each record made.
        tally: what was met on the way in.
        total: how many records there are, where that is known.
        emits: whether records go to stdout where they are wanted there.
    """
    tally = tally or Tally()
    shard = parse_shard(execution.shard)
    settings = {**step.settings, "shards": shard[1] if shard else None}
    folder = OutputFolder(out, step.name, settings, shard, execution.overwrite, step.origin, step.reserved)
    outcome = Outcome(skip_bad=execution.skip_bad)
    piped = emits and records_wanted(execution.json)
    passed_on = 0
    items = _planned(step, records, folder, shard)
    with Progress(step.name, step.unit, execution.quiet, total) as progress:
        for results, fresh in _worked(step, items, folder.path, execution):
            outcome.inputs += 1
            outcome.reused += not fresh and results[0]["schema"] != ERROR
            error = results[0]["schema"] == ERROR
            failed = fresh and error
            passed_on += error and not fresh
            outcome.failed += failed
            for record in results:
                folder.write(record)
                on_record(record)
                piped = piped and emit_while_read(record)
                outcome.records += record["schema"] != ERROR
            progress.step(failed)
            if failed and not execution.quiet:
                progress.clear()
                name, error = results[0]["id"], results[0]["error"]
                note(f"failed: {error}" if error.startswith(f"{name}: ") else f"failed: {name}: {error}")
    outcome.failed += tally.counts["damaged"]
    passed_on -= tally.counts["damaged"]
    counts = {"inputs": outcome.inputs, "records": outcome.records, "failed": outcome.failed}
    left_out = {key: count for key, count in tally.counts.items() if count and key != "damaged"}
    folder.finish(counts, left_out=left_out)
    if not execution.quiet:
        for line in (*tally.failures(), *tally.notes()):
            note(line)
        if passed_on:
            note(f"{passed_on:,} error records of an earlier step passed on")
        if outcome.reused:
            note(f"{outcome.reused:,} {step.unit} were done before")
        if outcome.failed:
            note(f"{outcome.failed:,} inputs failed; {out} holds an error record for each")
    return outcome


def stream_step(step: Step, records: Iterable[Record], folder: Path, jobs: int = 0) -> Generator[Record]:
    """The records a step makes, in order, its files in a folder; error records for inputs that fail.

    Nothing is printed, and no record file is written: for a command that goes on with them.

    Raises:
        UsageProblem: an input lies in the folder.
    """
    names = Names(step.reserved)

    def items() -> Iterator[_Item]:
        for record in records:
            if record["schema"] == ERROR:
                yield record, None, [record], False
                continue
            if lies_in(record["path"], folder):
                raise UsageProblem(f"{record['path']}: lies in {folder}, where cells are written; give another folder")
            try:
                step.expected(record)
                yield record, names.take(record["id"]), [], True
            except ImageError as error:
                yield record, None, [error_record(record["id"], record["path"], str(error))], True

    for results, _ in _worked(step, items(), folder, Execution(jobs=jobs)):
        yield from results


def lies_in(path: str, folder: Path) -> bool:
    """Whether a file lies in a folder, links resolved."""
    return _real_folder(os.path.dirname(path)).is_relative_to(folder.resolve())


@lru_cache(maxsize=256)
def _real_folder(path: str) -> Path:
    return Path(path).resolve()


def nothing_found(inputs: Sequence[str], tally: Tally) -> str:
    """That inputs held nothing to work on, and what was left out of them."""
    left_out = "; ".join(tally.notes())
    return f"{', '.join(inputs)}: no images or records found" + (f" ({left_out})" if left_out else "")


# An item on its way: the input, its output name (None where nothing is left to do), what stands.
_Item = tuple[Record, "str | None", "list[Record]", bool]


def _planned(
    step: Step, records: Iterable[Record], folder: OutputFolder, shard: tuple[int, int] | None
) -> Iterator[_Item]:
    for index, record in enumerate(records):
        mine = shard is None or index % shard[1] == shard[0] - 1
        if record["schema"] == ERROR:
            if mine:
                yield record, None, [record], False
            continue
        try:
            name = folder.names.take(record["id"])  # of all shards, so that names do not depend on them
            if not mine:
                continue
            if not step.plans and lies_in(record["path"], folder.path):
                raise ImageError(f"{record['path']}: lies in the output folder and might be overwritten; move one")
            old = folder.finished(record, step.expected(record))
        except ImageError as error:
            if mine:
                yield record, None, [error_record(record["id"], record["path"], str(error))], True
            continue
        if old is None:
            yield record, name, [], True
        else:
            kept = [step.compose(record, {key: made[key] for key in step.made if key in made}) for made in old]
            yield record, None, kept, False


def _worked(
    step: Step, items: Iterator[_Item], folder: Path, execution: Execution
) -> Iterator[tuple[list[Record], bool]]:
    call = partial(_call, step.work, folder)
    jobs = execution.jobs or cores()

    def finish(item: _Item, made: list[Record]) -> tuple[list[Record], bool]:
        record, name, ready, fresh = item
        if name is None:
            return ready, fresh
        if made[0].get("schema") == ERROR:
            return made, True
        return [step.compose(record, one) for one in made], True

    if jobs == 1 and not execution.scheduler:
        for item in items:
            yield finish(*call(item))
        return
    if not execution.scheduler:
        started = 0
        for item in items:
            yield finish(*call(item))
            started += item[1] is not None
            if started == _SERIAL_START:
                break
    ahead = list(islice(items, 1))
    if not ahead:
        return  # and no process is started
    rest = chain(ahead, items)
    shared = (
        on_cluster(call, rest, execution.scheduler, note) if execution.scheduler else in_processes(call, rest, jobs)
    )
    for item, made in shared:
        yield finish(item, made)


def _call(work: Callable[[Record, Path, str], list[Record]], folder: Path, item: _Item) -> tuple[_Item, list[Record]]:
    record, name = item[:2]
    if name is None:
        return item, []
    try:
        return item, work(record, folder, name)
    except ImageError as error:
        message = str(error)
    except MemoryError:
        message = "out of memory; give more memory or fewer --jobs"
    except OSError:  # reading gives an ImageError: this is a disk that takes no more, for any image
        raise
    except WbctoolError:  # not this image's fault: a device, a model
        raise
    except Exception as error:  # one bad image never stops a folder
        message = f"unexpected {type(error).__name__}: {error}"
    return item, [error_record(record["id"], record["path"], message)]
