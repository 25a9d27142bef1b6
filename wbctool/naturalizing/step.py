"""The stage function of `naturalize`: from mask records to a pool of their parts, and from the pool to composites."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from wbctool.console import note, warn
from wbctool.errors import BusyError, InputError, UsageProblem, counted
from wbctool.imaging.files import write_png
from wbctool.inputs.protection import refuse_replacing
from wbctool.naturalizing.cutting import cut_up, write_field
from wbctool.naturalizing.natural import compose_natural
from wbctool.naturalizing.options import BALANCED_TO, CompositeOptions
from wbctool.naturalizing.paper import compose_paper
from wbctool.naturalizing.plan import check_pool, digest_of, plan_composites, training_fields
from wbctool.naturalizing.pool import INHERITED, LEFT_OUT, Pool, read_pool
from wbctool.pipeline.output_folder import read_run
from wbctool.pipeline.runner import folder_for, run_records
from wbctool.pipeline.source import Source
from wbctool.pipeline.step import Execution, Outcome, Step, added, parse_shard, same_id
from wbctool.records import MASK, Record, to_line
from wbctool.records.selection import Selection

_COMPOSE = {"natural": compose_natural, "paper": compose_paper}
# in the order of the records
_KEYS: tuple[str, ...] = ("schema", "id", "path", "label", "group", *INHERITED, "size")
_KEYS += ("mask", "cells", "synthetic", "sources", "naturalize")


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
    """The result of `make_composites`: numbers of each class, of fields in the pool, and the outcome of the step."""

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
    execution = execution or Execution()
    pool_folder = pool_folder or out / "pool"
    parse_shard(execution.shard)
    source = Source(inputs, selection)
    records, left_out = training_fields(source)
    counts = Counter(record["label"] for record in records if record.get("label") is not None)
    amounts = options.amounts(counts)
    if pool_folder.resolve() == out.resolve():
        raise UsageProblem(f"--pool {pool_folder}: is the output folder itself; give another")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder with -o")
    for option, folder in (("-o", out), ("--pool", pool_folder)):
        refuse_replacing(option, folder, inputs, records)
    if not amounts and options.add != 0 and not execution.quiet:
        aim = options.balance_to or BALANCED_TO
        note(f"nothing to make: no class has fewer than {counted(aim, 'training image')}")
    pool = _prepare_pool(records, pool_folder, execution.model_copy(update={"shard": None, "overwrite": False}))
    classes = [
        ClassCounts(label, counts[label], len(pool.subjects.get(label, ())), amounts.get(label, 0))
        for label in sorted(counts)
    ]
    if not execution.quiet:
        _report(records, [*source.tally.notes(), *(f"{line} left out" for line in left_out)], pool, classes)
    check_pool(pool, counts, amounts, needs_red_cells=options.algorithm == "paper" and options.rbc != 0)
    outcome = Outcome(skip_bad=execution.skip_bad)
    if amounts:
        step = _composite_step(pool, source.names, out, amounts, options, execution.overwrite)
        plan = plan_composites(pool, amounts, options, out.resolve())
        outcome = run_records(step, plan, folder_for(step, out, execution), execution, total=sum(amounts.values()))
    outcome.failed += pool.failed + source.tally.counts["damaged"]
    return CompositeResult(classes, len(pool.fields), outcome)


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


def _prepare_pool(records: list[Record], folder: Path, execution: Execution) -> Pool:
    """Cut fields into a pool, unless it was made of the same records before, and read it."""
    settings = {"records": digest_of(records)}
    step = Step("naturalize", settings, same_id, added, ("pool",), "fields", work=cut_up)
    is_made = is_waiting = False
    while not is_made and not _is_complete(folder, settings):
        try:
            run_records(step, records, folder_for(step, folder, execution), execution, total=len(records), emits=False)
            is_made = True
        except BusyError:
            if not is_waiting and not execution.quiet:
                note(f"another command is making {folder}; waiting for it")
            is_waiting = True
            time.sleep(1)
    pool = read_pool(folder)
    if is_made or not (folder / LEFT_OUT).exists():  # it is missing if the command was killed just before
        pool.write_left_out()
    return pool


def _is_complete(folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether a pool of these records is finished, without failures; refuse a folder of something else."""
    if folder.exists() and not folder.is_dir():
        raise UsageProblem(f"{folder}: is a file; give a folder with --pool")
    run_file, records = folder / "run.json", folder / "records.jsonl"
    if not run_file.exists():
        if records.exists():
            raise UsageProblem(f"{folder}: is no pool (it has no run.json); give another --pool")
        return False
    run = read_run(run_file, f"remove {folder}")
    if run.get("command") != "naturalize" or "records" not in run["settings"]:
        raise UsageProblem(f"{folder}: is no pool, `wbctool {run.get('command')}` made it; give another --pool")
    if run["settings"]["records"] != settings["records"]:
        raise UsageProblem(
            f"{folder}: made of other training images, masks or labels; give another --pool, or remove it"
        )
    return bool(run.get("finished") and records.exists() and not run["counts"].get("failed"))


def _composite_step(
    pool: Pool, inputs: list[str], out: Path, amounts: dict[str, int], options: CompositeOptions, overwrite: bool
) -> Step:
    """Return the step from planned records to composites; an output of a pool that has changed since is refused."""
    digest = hashlib.blake2b(to_line(read_run(pool.folder / "run.json", "remove the pool")["settings"]).encode())
    red_cells = [cell["file"] for _, cell in pool.red_cells]
    for parts in (sorted(pool.subjects.items()), pool.cleared, pool.backgrounds, red_cells):
        digest.update(repr(parts).encode())
    state = digest.hexdigest()[:32]
    if (out / "run.json").exists() and not overwrite:
        before = read_run(out / "run.json", f"remove {out}")["settings"].get("parts")
        if before not in (None, state):
            raise UsageProblem(f"{out}: was made of another pool, or before parts were removed; add --overwrite")
    return Step(
        name="naturalize",
        settings={
            "inputs": inputs,
            "amounts": amounts,
            "algorithm": options.algorithm,
            "rbc": options.rbc,
            "seed": options.seed,
            "pool": str(pool.folder),
            "parts": state,
        },
        expected=same_id,
        work=partial(compose_planned, str(pool.folder), state),
        compose=lambda planned, made: made,
        made=_KEYS,
        unit="composites",
        reserved=("masks",),
        plans=True,
    )


@lru_cache(maxsize=1)
def _read_once(folder: str, _state: str) -> Pool:
    return read_pool(Path(folder))


def compose_planned(pool_folder: str, state: str, record: Record, folder: Path, name: str) -> list[Record]:
    """Compose one composite, as `plan_composites` yields it, write its image and label image, and return its record.

    The pool is read once per process and `state`, which changes when the pool does.
    """
    pool, plan = _read_once(pool_folder, state), record["naturalize"]
    index = pool.index_of[plan["cell"]]
    donor = pool.fields[index]
    scene = _COMPOSE[plan["algorithm"]](pool, index, plan["rbc"], np.random.default_rng(plan["seed"]))
    labels, cells = scene.describe()
    path = write_field(folder / name, scene.image, scene.coding)
    mask_path = folder / "masks" / f"{name}.png"
    write_png(mask_path, labels)
    cell = {"source": donor.id, **scene.provenance.pop("cell")}
    field = scene.provenance.get("field") or scene.provenance["background"]
    sources = [donor.id, field, *(red_cell["source"] for red_cell in scene.provenance.get("red_cells", ()))]
    return [
        {
            "schema": MASK,
            "id": record["id"],
            "path": str(path),
            "label": donor.label,
            "group": donor.group,
            **donor.inherited,
            "size": list(scene.size),
            "mask": str(mask_path),
            "cells": cells,
            "synthetic": True,
            "sources": list(dict.fromkeys(sources)),
            "naturalize": {"algorithm": plan["algorithm"], "seed": plan["seed"], "cell": cell, **scene.provenance},
        }
    ]
