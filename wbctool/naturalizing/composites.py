"""The stage function of `naturalize`: from mask records to composites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wbctool.console import note, warn
from wbctool.errors import InputError, UsageProblem, counted
from wbctool.inputs.folders import read_inputs
from wbctool.inputs.protection import refuse_replacing
from wbctool.naturalizing.options import BALANCED_TO, CompositeOptions
from wbctool.naturalizing.plan import check_pool, plan_composites, training_fields
from wbctool.naturalizing.pool import LEFT_OUT, Pool
from wbctool.naturalizing.step import composite_step, prepare_pool
from wbctool.pipeline.runner import folder_for, run_records
from wbctool.pipeline.step import Execution, Outcome, parse_shard
from wbctool.records import Record
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally


@dataclass(frozen=True)
class ClassCounts:
    """Numbers of a class: training images, cells in the pool, composites, and how often each cell is used."""

    label: str
    real: int
    cells: int
    new: int

    @property
    def uses(self) -> str:
        """How often each cell is used, such as `2 ×` or `2–3 ×`; empty without composites."""
        if not self.new or not self.cells:
            return ""
        least, rest = divmod(self.new, self.cells)
        return f"{least}–{least + 1} ×" if rest else f"{least} ×"


@dataclass(frozen=True)
class CompositeResult:
    """What `make_composites` has made.

    Attributes:
        classes: numbers of each class.
        fields: number of fields in the pool.
        outcome: of the folder step, with its exit code.
    """

    classes: list[ClassCounts]
    fields: int
    outcome: Outcome


def make_composites(
    inputs: Sequence[str],
    out: Path,
    options: CompositeOptions,
    pool_folder: Path | None = None,
    selection: Selection | None = None,
    execution: Execution | None = None,
) -> CompositeResult:
    """Make composites of real cells and real fields of view, with exact masks, for training only.

    Only images of the training split are used, where the records have splits. They are cut into a pool first, unless
    that exists already.

    Args:
        inputs: mask records, as `segment` and `split` give them: folders, files or `-`.
        out: the output folder.
        options: how many composites of which classes, and how they are made.
        pool_folder: where the cut-outs are kept; by default `pool` in the output folder.
        selection: where labels and groups come from.
        execution: processes, shards and what is printed.

    Raises:
        InputError: no usable training image, or none of a wanted class.
        UsageProblem: an output that contains an input, or that was made with other settings.
    """
    execution, tally = execution or Execution(), Tally()
    pool_folder = pool_folder or out / "pool"
    parse_shard(execution.shard)
    records, left_out = training_fields(read_inputs(inputs, selection or Selection(), tally))
    counts = Counter(record["label"] for record in records if record.get("label") is not None)
    amounts = options.amounts(counts)
    _check_outputs(out, pool_folder, inputs, records)
    if not amounts and options.add != 0 and not execution.quiet:
        aim = options.balance_to or BALANCED_TO
        note(f"nothing to make: no class has fewer than {counted(aim, 'training image')}")
    pool = prepare_pool(records, pool_folder, execution.model_copy(update={"shard": None, "overwrite": False}))
    classes = [
        ClassCounts(label, counts[label], len(pool.subjects.get(label, ())), amounts.get(label, 0))
        for label in sorted(counts)
    ]
    if not execution.quiet:
        _report(records, [*tally.notes(), *(f"{line} left out" for line in left_out)], pool, classes)
    check_pool(pool, counts, amounts, needs_red_cells=options.algorithm == "paper" and options.rbc != 0)
    outcome = Outcome(skip_bad=execution.skip_bad)
    if amounts:
        step = composite_step(pool, inputs, out, amounts, options, execution.overwrite)
        plan = plan_composites(pool, amounts, options, out.resolve())
        outcome = run_records(step, plan, folder_for(step, out, execution), execution, total=sum(amounts.values()))
    outcome.failed += pool.failed + tally.counts["damaged"]
    return CompositeResult(classes, len(pool.fields), outcome)


def _check_outputs(out: Path, pool_folder: Path, inputs: Sequence[str], records: Sequence[Record]) -> None:
    if pool_folder.resolve() == out.resolve():
        raise UsageProblem(f"--pool {pool_folder}: is the output folder itself; give another")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder with -o")
    for option, folder in (("-o", out), ("--pool", pool_folder)):
        refuse_replacing(option, folder, inputs, records)


def _report(records: Sequence[Record], notes: Iterable[str], pool: Pool, classes: Iterable[ClassCounts]) -> None:
    for line in notes:
        note(line)
    if not any("split" in record for record in records):
        warn("the records have no split: your test images may contain cells of these composites; split first")
    if pool.left_out:
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in pool.reasons().most_common(3))
        images = counted(len(pool.left_out), "image is", "images are")
        note(f"{images} not in the pool ({reasons}); see {pool.folder / LEFT_OUT}")
    if pool.removed:
        note(f"{counted(pool.removed, 'part')} of the pool removed by hand")
    if reused := [f"{one.label} {one.uses}" for one in classes if one.new > one.cells > 0]:
        note(f"fewer cells than composites, each is used so often: {', '.join(reused)}")
