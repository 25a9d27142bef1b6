"""The folder steps of `naturalize`: fields to a pool, and the pool to composites."""

from __future__ import annotations

import hashlib
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from wbctool.console import note
from wbctool.errors import BusyError, UsageProblem
from wbctool.imaging.files import write_png
from wbctool.naturalizing.cutting import take_apart, write_field
from wbctool.naturalizing.natural import compose_natural
from wbctool.naturalizing.paper import compose_paper
from wbctool.naturalizing.plan import ALGORITHMS, digest_of
from wbctool.naturalizing.pool import CARRIED, LEFT_OUT, Pool, read_pool
from wbctool.pipeline.output_folder import read_run
from wbctool.pipeline.runner import folder_for, run_records
from wbctool.pipeline.step import Execution, Step, added, same_id
from wbctool.records import MASK, Record, to_line

COMPOSE = dict(zip(ALGORITHMS, (compose_natural, compose_paper), strict=True))
# in the order in which a record has them
_MADE: tuple[str, ...] = ("schema", "id", "path", "label", "group", *CARRIED, "size")
_MADE += ("mask", "cells", "synthetic", "sources", "naturalize")


def make_pool(records: list[Record], folder: Path, execution: Execution) -> None:
    """Take fields apart into a pool, unless it was made of the same records before.

    Where another command is making it, wait for that.

    Raises:
        UsageProblem: it was made of other records.
    """
    settings = {"records": digest_of(records)}
    if folder.exists() and not folder.is_dir():
        raise UsageProblem(f"{folder}: is a file; give a folder with --pool")
    if (folder / "records.jsonl").exists() and not (folder / "run.json").exists():
        raise UsageProblem(f"{folder}: is no pool (it has no run.json); give another --pool")
    step = Step("naturalize", settings, same_id, added, ("pool",), "fields", work=take_apart)
    waited = False
    while True:
        run = folder / "run.json"
        if run.exists():
            old = read_run(run, f"remove {folder}")
            if old.get("command") != "naturalize" or "records" not in old["settings"]:
                raise UsageProblem(f"{folder}: is no pool, `wbctool {old.get('command')}` made it; give another --pool")
            if old["settings"]["records"] != settings["records"]:
                raise UsageProblem(
                    f"{folder}: made of other training images, masks or labels; give another --pool, or remove it"
                )
            whole = old.get("finished") and (folder / "records.jsonl").exists()
            if whole and not old["counts"].get("failed"):
                if not (folder / LEFT_OUT).exists():  # killed before it was written
                    read_pool(folder).write_left_out()
                return
        try:
            run_records(step, records, folder_for(step, folder, execution), execution, total=len(records), emits=False)
            read_pool(folder).write_left_out()
            return
        except BusyError:
            if not waited and not execution.quiet:
                note(f"another command is making {folder}; waiting for it")
            waited = True
            time.sleep(1)


def composite_step(pool: Pool, out: Path, settings: dict[str, Any], overwrite: bool) -> Step:
    """The step from planned records to composites.

    Raises:
        UsageProblem: the output was made of a pool that has changed since.
    """
    state = hashlib.blake2b(to_line(read_run(pool.folder / "run.json", "remove the pool")["settings"]).encode())
    for part in (sorted(pool.subjects.items()), pool.fields, pool.backgrounds, [c["file"] for _, c in pool.red_cells]):
        state.update(repr(part).encode())
    digest = state.hexdigest()[:32]
    if (out / "run.json").exists() and not overwrite:
        before = read_run(out / "run.json", f"remove {out}")["settings"].get("parts")
        if before not in (None, digest):
            raise UsageProblem(f"{out}: was made of another pool, or before parts were removed; add --overwrite")
    return Step(
        name="naturalize",
        settings={**settings, "pool": str(pool.folder), "parts": digest},
        expected=same_id,
        work=partial(_composite, str(pool.folder), digest),
        compose=lambda planned, made: made,
        made=_MADE,
        unit="composites",
        reserved=("masks",),
        plans=True,
    )


@lru_cache(maxsize=1)
def _read_once(place: str, _state: str) -> Pool:
    return read_pool(Path(place))


def _composite(place: str, state: str, record: Record, folder: Path, name: str) -> list[Record]:
    pool = _read_once(place, state)
    plan = record["naturalize"]
    number = pool.numbers[plan["cell"]]
    piece = pool.pieces[number]
    scene = COMPOSE[plan["algorithm"]](pool, number, plan["rbc"], np.random.default_rng(plan["seed"]))
    labels, cells = scene.described()
    path = write_field(folder / name, scene.image, scene.coding)
    mask_path = folder / "masks" / f"{name}.png"
    write_png(mask_path, labels)
    cell = {"source": piece.id, **scene.how.pop("cell")}
    others = [scene.how.get("field") or scene.how["background"]]
    others += [red["source"] for red in scene.how.get("red_cells", ())]
    return [
        {
            "schema": MASK,
            "id": record["id"],
            "path": str(path),
            "label": piece.label,
            "group": piece.group,
            **piece.carried,
            "size": list(scene.size),
            "mask": str(mask_path),
            "cells": cells,
            "synthetic": True,
            "sources": list(dict.fromkeys([piece.id, *others])),
            "naturalize": {"algorithm": plan["algorithm"], "seed": plan["seed"], "cell": cell, **scene.how},
        }
    ]
