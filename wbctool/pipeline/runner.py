"""The runner: takes records through a step, streamed in input order, and resumes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from wbctool.console import Progress, emit, emit_while_read, note, records_wanted
from wbctool.device import cores
from wbctool.errors import ImageError, UsageProblem, WbctoolError
from wbctool.inputs.protection import refuse_replacing
from wbctool.pipeline.names import Names
from wbctool.pipeline.output_folder import Output, OutputFolder, lies_in
from wbctool.pipeline.parallel import in_processes, on_cluster
from wbctool.pipeline.source import Source
from wbctool.pipeline.step import BatchStep, Execution, Outcome, Step, parse_shard
from wbctool.records import ERROR, Record, error_record
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally

# Starting worker processes takes about a second: the first images are processed before.
_SERIAL_START = 16


@dataclass
class _Item:
    """A record on its way through a step.

    Attributes:
        record: the input.
        name: its output name.
        results: output records that are known already.
        pending: whether it has to be processed.
        fresh: whether its results are this command's.
    """

    record: Record
    name: str = ""
    results: list[Record] = field(default_factory=list)
    pending: bool = False
    fresh: bool = False

    def fail(self, reason: str) -> _Item:
        """The same item, ended by an error record."""
        error = error_record(self.record["id"], self.record["path"], reason)
        return replace(self, results=[error], pending=False, fresh=True)


def run_step(
    step: Step | BatchStep,
    inputs: Sequence[str],
    out: Path,
    selection: Selection,
    execution: Execution,
    on_record: Callable[[Record], None] = lambda record: None,
) -> Outcome:
    """Run a step over inputs into an output folder, and print records in input order where they are wanted.

    Args:
        step: the step.
        inputs: folders, images, record files, or `-`.
        out: the output folder.
        selection: where labels and groups come from, and which classes are kept.
        execution: how it is run.
        on_record: called with each output record.

    Raises:
        InputError: there is nothing to work on, or an input cannot be used.
        UsageProblem: options that cannot be used.
    """
    parse_shard(execution.shard)
    source = Source(inputs, selection)
    if source.first["schema"] != ERROR:
        step.check(source.first)
    refuse_replacing("-o", out, inputs, [source.first])
    step = replace(step, settings={**step.settings, "inputs": source.names})
    output = folder_for(step, out, execution)
    return run_records(step, source, output, execution, on_record, source.tally, source.total(execution))


def folder_for(step: Step | BatchStep, out: Path, execution: Execution) -> OutputFolder:
    """The output folder of a step.

    Raises:
        UsageProblem: it was made with other settings.
        InputError: another command is writing it.
    """
    shard = parse_shard(execution.shard)
    settings = {**step.settings, "shards": shard[1] if shard else None}
    return OutputFolder(out, step.name, settings, shard, execution.overwrite, step.origin, step.reserved)


def run_records(
    step: Step | BatchStep,
    records: Iterable[Record],
    output: Output,
    execution: Execution,
    on_record: Callable[[Record], None] = lambda record: None,
    tally: Tally | None = None,
    total: int | None = None,
    emits: bool = True,
    on_result: Callable[[Record], Record] = lambda record: record,
    before_end: Callable[[], dict[str, Any]] = dict,
    failed_here: Callable[[Record], bool] = lambda error: False,
) -> Outcome:
    """Run a step over records with absolute paths; see `run_step`.

    Args:
        step: the step.
        records: the input.
        output: where records go.
        execution: how it is run.
        on_record: called with each output record.
        tally: what was left out of the input.
        total: number of records, where it is known.
        emits: whether records go to stdout where they are wanted there.
        on_result: changes an output record before it is written.
        before_end: called after the last record; what it returns goes into `run.json`.
        failed_here: whether an error record among the input is a failure of this command, not of an earlier one.
    """
    tally = tally or Tally()
    outcome = Outcome(skip_bad=execution.skip_bad)
    emitting = emits and execution.prints and records_wanted(execution.json_)
    passed_on = 0
    items = _planned(step, records, output, parse_shard(execution.shard))
    with Progress(step.name, step.unit, execution.quiet, total) as progress:
        for item in _processed(step, items, output.path, execution):
            item.results = [on_result(record) for record in item.results]
            error = item.results[0]["schema"] == ERROR
            failed = error and (item.fresh or failed_here(item.results[0]))
            outcome.inputs += 1
            outcome.failed += failed
            outcome.reused += not item.fresh and not error
            passed_on += error and not failed
            for record in item.results:
                output.write(record)
                on_record(record)
                emitting = emitting and _emitted(record, to_output=output.path is not None)
                outcome.records += record["schema"] != ERROR
            progress.step(failed)
            if failed and not execution.quiet:
                progress.clear()
                note(_failure(item.results[0]))
    outcome.failed += tally.counts["damaged"]
    passed_on -= tally.counts["damaged"]
    left_out = {key: count for key, count in tally.counts.items() if count and key != "damaged"}
    counts = {"inputs": outcome.inputs, "records": outcome.records, "failed": outcome.failed}
    output.finish(counts=counts, left_out=left_out, **before_end())
    if not execution.quiet:
        _print_notes(step, output, outcome, tally, passed_on)
    return outcome


def _emitted(record: Record, to_output: bool) -> bool:
    """Print a record; whether further ones are still read."""
    if to_output:
        return emit_while_read(record)
    emit(record)
    return True


def _failure(error: Record) -> str:
    name, reason = error["id"], error["error"]
    return f"failed: {reason}" if reason.startswith(f"{name}: ") else f"failed: {name}: {reason}"


def _print_notes(step: Step | BatchStep, output: Output, outcome: Outcome, tally: Tally, passed_on: int) -> None:
    for line in (*tally.failures(), *tally.notes()):
        note(line)
    if passed_on:
        note(f"{passed_on:,} error records of an earlier step passed on")
    if outcome.reused:
        note(f"{outcome.reused:,} {step.unit} were done before")
    if outcome.failed:
        where = f"{output.path} holds" if output.path else "stdout has"
        note(f"{outcome.failed:,} inputs failed; {where} an error record for each")


def stream_step(step: Step, records: Iterable[Record], folder: Path, jobs: int = 0) -> Generator[Record]:
    """Yield the records that a step makes, in order, its files in a folder; error records for inputs that fail.

    Nothing is printed, and no record file is written: for a command that goes on with them.

    Raises:
        UsageProblem: an input lies in the folder.
    """
    names = Names(step.reserved)

    def items() -> Iterator[_Item]:
        for record in records:
            item = _Item(record, results=[record])
            if record["schema"] != ERROR:
                if lies_in(record["path"], folder):
                    raise UsageProblem(
                        f"{record['path']}: lies in {folder}, where cells are written; give another folder"
                    )
                try:
                    step.expected(record)
                    item = _Item(record, names.take(record["id"]), pending=True, fresh=True)
                except ImageError as error:
                    item = item.fail(str(error))
            yield item

    for item in _processed(step, items(), folder, Execution(jobs=jobs)):
        yield from item.results


def _planned(
    step: Step | BatchStep, records: Iterable[Record], output: Output, shard: tuple[int, int] | None
) -> Iterator[_Item]:
    """Items of this shard, those that an earlier command finished with their results."""
    for index, record in enumerate(records):
        mine = shard is None or index % shard[1] == shard[0] - 1
        item = _Item(record, results=[record])
        if record["schema"] != ERROR:
            try:
                name = output.take_name(record)  # of all shards, so that names do not depend on them
                if mine:
                    item = _planned_item(step, record, name, output)
            except ImageError as error:
                item = item.fail(str(error))
        if mine:
            yield item


def _planned_item(step: Step | BatchStep, record: Record, name: str, output: Output) -> _Item:
    if isinstance(output, OutputFolder) and not step.plans:
        for key in ("path", "mask"):
            if isinstance(record.get(key), str) and lies_in(record[key], output.path):
                raise ImageError(f"{record[key]}: lies in the output folder and might be overwritten; move one")
    earlier = output.finished(record, step.expected(record), step.unchanged)
    if earlier is None:
        return _Item(record, name, pending=True, fresh=True)
    results = [step.compose(record, {key: old[key] for key in step.made if key in old}) for old in earlier]
    return _Item(record, name, results)


def _processed(
    step: Step | BatchStep, items: Iterator[_Item], folder: Path | None, execution: Execution
) -> Iterator[_Item]:
    """The items in order, all with their results."""
    if isinstance(step, BatchStep):
        yield from _in_batches(step, items)
        return
    assert folder is not None
    call = partial(_call, step.work, folder)
    for item, made in _called(call, items, execution):
        yield _with_results(step, item, made)


def _with_results(step: Step | BatchStep, item: _Item, made: list[Record]) -> _Item:
    if item.pending:
        failed = made[0].get("schema") == ERROR
        item.results = made if failed else [step.compose(item.record, one) for one in made]
    return item


def _in_batches(step: BatchStep, items: Iterator[_Item]) -> Iterator[_Item]:
    with step.session() as work:
        while batch := list(islice(items, step.batch_size)):
            if any(item.pending for item in batch):
                # finished items, too, so that numbers do not depend on what was finished before
                whole = [item for item in batch if item.name]
                for item, made in zip(whole, work([(item.record, item.name) for item in whole]), strict=True):
                    _with_results(step, item, made)
            yield from batch


def _called(
    call: Callable[[_Item], tuple[_Item, list[Record]]], items: Iterator[_Item], execution: Execution
) -> Iterator[tuple[_Item, list[Record]]]:
    """Call on items in this process, in worker processes, or on a cluster; in order."""
    jobs = execution.jobs or cores()
    if jobs == 1 and not execution.scheduler:
        yield from map(call, items)
        return
    if not execution.scheduler:
        started = 0
        for item in items:
            yield call(item)
            started += item.pending
            if started == _SERIAL_START:
                break
    ahead = list(islice(items, 1))
    if not ahead:
        return  # and no process is started
    rest = chain(ahead, items)
    if execution.scheduler:
        yield from on_cluster(call, rest, execution.scheduler, note)
    else:
        yield from in_processes(call, rest, jobs)


def _call(work: Callable[[Record, Path, str], list[Record]], folder: Path, item: _Item) -> tuple[_Item, list[Record]]:
    """Process an item; one that fails gives an error record, as one bad image never stops a folder."""
    record = item.record
    if not item.pending:
        return item, []
    try:
        return item, work(record, folder, item.name)
    except ImageError as error:
        message = str(error)
    except MemoryError:
        message = "out of memory; give more memory or fewer --jobs"
    except OSError:  # reading gives an ImageError: this is a disk that takes no more, for any image
        raise
    except WbctoolError:  # not this image's fault: a device, a model
        raise
    except Exception as error:
        message = f"unexpected {type(error).__name__}: {error}"
    return item, [error_record(record["id"], record["path"], message)]
