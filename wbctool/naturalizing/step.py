"""The folder steps of `naturalize`: fields to a pool, and the pool to composites."""

from __future__ import annotations

import hashlib
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from wbctool.errors import BusyError, UsageProblem
from wbctool.imaging.files import write_png
from wbctool.naturalizing.cutting import take_apart, write_field
from wbctool.naturalizing.natural import compose_natural
from wbctool.naturalizing.paper import compose_paper
from wbctool.naturalizing.plan import ALGORITHMS, digest_of
from wbctool.naturalizing.pool import CARRIED, Pool, read_pool
from wbctool.outputs import read_json
from wbctool.records import MASK, Record
from wbctool.steps import Execution, Step, added, run_records, same_id

COMPOSE = dict(zip(ALGORITHMS, (compose_natural, compose_paper), strict=True))
POOL_FOLDERS = ("masks", "windows", "field", "background", "wbc", "rbc", "platelet")
# in the order in which a record has them
_MADE = ("schema", "id", "path", "label", "group", *CARRIED, "size")
_MADE += ("mask", "cells", "synthetic", "sources", "naturalize")


def make_pool(records: list[Record], folder: Path, execution: Execution) -> None:
    """Take fields apart into a pool, unless it was made of the same records before.

    Where another command is making it, wait for that.

    Raises:
        UsageProblem: it was made of other records.
    """
    settings = {"records": digest_of(records)}
    step = Step("naturalize", settings, same_id, take_apart, added, ("pool",), "fields", plans=False)
    while True:
        run = folder / "run.json"
        if run.exists():
            old = read_json(run, f"remove {folder}")
            if old.get("settings", {}).get("records") != settings["records"]:
                raise UsageProblem(
                    f"{folder}: made of other training images, masks or labels; give another --pool, or remove it"
                )
            if old.get("finished") and not old.get("counts", {}).get("failed"):
                return
        try:
            run_records(step, records, folder, execution, total=len(records), emits=False)
            read_pool(folder).write_left_out()
            return
        except BusyError:
            time.sleep(1)


def composite_step(pool: Pool, settings: dict[str, Any]) -> Step:
    """The step from planned records to composites."""
    state = hashlib.blake2b(digest_size=16)
    for part in (sorted(pool.subjects.items()), pool.fields, pool.backgrounds, [c["file"] for _, c in pool.red_cells]):
        state.update(repr(part).encode())
    return Step(
        name="naturalize",
        settings={**settings, "pool": str(pool.folder), "parts": state.hexdigest()},
        expected=same_id,
        work=partial(_composite, str(pool.folder)),
        compose=lambda planned, made: made,
        made=_MADE,
        unit="composites",
        reserved=("masks", "pool"),
        plans=True,
    )


_read_once = lru_cache(maxsize=1)(read_pool)


def _composite(place: str, record: Record, folder: Path, name: str) -> list[Record]:
    pool = _read_once(Path(place))
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
