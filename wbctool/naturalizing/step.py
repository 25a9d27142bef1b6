"""The folder steps of `naturalize`: from fields to a pool, and from the pool to composites."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from wbctool.console import note
from wbctool.errors import BusyError, UsageProblem
from wbctool.imaging.files import write_png
from wbctool.inputs.folders import names_of
from wbctool.naturalizing.cutting import cut_up, write_field
from wbctool.naturalizing.natural import compose_natural
from wbctool.naturalizing.options import CompositeOptions
from wbctool.naturalizing.paper import compose_paper
from wbctool.naturalizing.plan import digest_of
from wbctool.naturalizing.pool import INHERITED, LEFT_OUT, Pool, read_pool
from wbctool.pipeline.output_folder import read_run
from wbctool.pipeline.runner import folder_for, run_records
from wbctool.pipeline.step import Execution, Step, added, same_id
from wbctool.records import MASK, Record, to_line

_COMPOSE = {"natural": compose_natural, "paper": compose_paper}
# in the order of the records
_KEYS: tuple[str, ...] = ("schema", "id", "path", "label", "group", *INHERITED, "size")
_KEYS += ("mask", "cells", "synthetic", "sources", "naturalize")


def prepare_pool(records: list[Record], folder: Path, execution: Execution) -> Pool:
    """Cut fields into a pool, unless it was made of the same records before, and read it.

    Raises:
        UsageProblem: the folder is something else, or a pool of other records.
    """
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
    """Return whether a pool of these records is finished, without failures.

    Raises:
        UsageProblem: the folder is something else, or a pool of other records.
    """
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


def composite_step(
    pool: Pool, inputs: Sequence[str], out: Path, amounts: dict[str, int], options: CompositeOptions, overwrite: bool
) -> Step:
    """Return the step from planned records to composites.

    Raises:
        UsageProblem: the output was made of a pool that has changed since.
    """
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
            "inputs": names_of(inputs),
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
    """Compose one planned composite, and write its image and its label image.

    Args:
        pool_folder: the pool, which is read once per process.
        state: changes when the pool does.
        record: as `plan_composites` yields it.
        folder: the output folder.
        name: of the files, with folders, without suffix.

    Returns:
        Its mask record.
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
