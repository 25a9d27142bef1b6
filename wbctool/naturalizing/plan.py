"""How many composites of each class, and of which cell each is: from numbers alone, so that a million cost nothing."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from wbctool.errors import InputError, UsageProblem
from wbctool.naturalizing.pool import CARRIED, Pool
from wbctool.pipeline.names import safe_name
from wbctool.records import ERROR, IMAGE, MASK, Record, to_line
from wbctool.records.composites import is_composite

ALGORITHMS = ("natural", "paper")

# The sets of the Naturalize paper: composites added to the pruned PBC images of each class.
_SCARCE = ("BNE", "MMY", "MY", "PMY", "SNE")
SETS: dict[str, dict[str, int]] = {
    "419-pmy": {"PMY": 592},
    "1k": {**dict.fromkeys(_SCARCE, 1000), "PMY": 1592},
    "2k": {**dict.fromkeys(_SCARCE, 2000), "PMY": 2592},
}
# The paper does not say how large its balanced set is; it tests 200 images of each class, a fifth of 1,000.
BALANCED_SET, BALANCED_TO = "1k-class", 1000


def for_training(records: Iterable[Record]) -> tuple[list[Record], Counter[str]]:
    """The records that composites may be made of, and how many were left out, by why.

    Where any record has a split, these are the ones of `train`, and no other.

    Raises:
        InputError: there is none; some records have no mask, or a nucleus in place of a cell; or some are composites.
    """
    real: list[Record] = []
    left_out: Counter[str] = Counter()
    for record in records:
        if record["schema"] == ERROR:
            left_out["error records"] += 1
        elif is_composite(record):
            raise InputError(f"{record['id']}: is a composite itself; give the records of real images")
        elif record["schema"] != MASK or not record.get("mask") or "size" not in record:
            raise InputError(f"{record['id']}: has no mask; run `wbctool segment` first")
        else:
            real.append(record)
    if any(record.get("split") for record in real):
        kept = []
        for record in real:
            if record.get("split") == "train":
                kept.append(record)
            else:
                left_out[f"images of {record.get('split') or 'no split'}"] += 1
        real = kept
    if not real:
        raise InputError("no training image to make composites of: " + _told(left_out))
    whites = [cell for record in real for cell in record["cells"] if cell["kind"] == "wbc"]
    if whites and all((cell.get("nucleus") or {}).get("area") == cell["area"] for cell in whites):
        raise InputError(
            f"the masks hold nuclei only (method {real[0].get('method')}), and composites need whole cells; "
            "run `wbctool segment` with its default method into another folder"
        )
    return real, left_out


def refuse_inside(records: Iterable[Record], inputs: Sequence[str], folders: Mapping[str, Path]) -> None:
    """Refuse to write where the input lies.

    Args:
        records: of the input.
        inputs: as they were given.
        folders: that are written, by option.

    Raises:
        UsageProblem: naming what would be in danger.
    """
    held = {os.path.dirname(path) for record in records for path in (record["path"], record["mask"])}
    held |= {os.path.abspath(name if os.path.isdir(name) else os.path.dirname(name)) for name in inputs if name != "-"}
    for option, folder in folders.items():
        for place in sorted(held):
            given = Path(place).resolve()
            # a file of records beside which the output goes is in no danger
            own = option == "-o" and given == folder.resolve() and not (given / "records.jsonl").exists()
            if given.is_relative_to(folder.resolve()) and not own:
                raise UsageProblem(f"{option} {folder}: holds the input {place}; give another, so that nothing is lost")


def _told(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in left_out.items()) or "the input is empty"


def digest_of(records: Iterable[Record]) -> str:
    """Changes when the images, their masks, labels or groups do, in whatever order; 32 hexadecimal digits."""
    total = 0
    for record in records:
        files = [[status.st_size, status.st_mtime_ns] for status in map(_status, (record["path"], record["mask"]))]
        line = to_line({**{key: record.get(key) for key in _TOLD}, "files": files})
        total ^= int.from_bytes(hashlib.blake2b(line.encode(), digest_size=16).digest(), "big")
    return f"{total:032x}"


_TOLD = ("id", "path", "label", "group", "size", "cells", *CARRIED)


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError:
        return os.stat_result([0] * 10)


def amounts(
    real: Mapping[str, int],
    add: int | None,
    balance_to: int | None,
    named: str | None,
    classes: Sequence[str],
) -> dict[str, int]:
    """Composites to make of each class, without those of which there are none to make.

    Args:
        real: training images of each class.
        add: so many of each class.
        balance_to: as many as are lacking from this number.
        named: one of `SETS`, or `BALANCED_SET`.
        classes: only of these; empty for all.

    Raises:
        UsageProblem: not exactly one way of counting; no such set.
        InputError: a class without images.
    """
    if sum(way is not None for way in (add, balance_to, named)) != 1:
        raise UsageProblem("say how many composites to make: --add N, --balance-to N or --set NAME, one of them")
    if named is not None and named not in (*SETS, BALANCED_SET):
        raise UsageProblem(f"--set {named}: choose from {', '.join((*SETS, BALANCED_SET))}")
    if add != 0 and not real:
        raise InputError("no training image has a label; give --label-regex or --labels")
    if named in SETS and set(classes) - set(SETS[named]):
        raise UsageProblem(f"--classes {','.join(classes)}: --set {named} has {', '.join(SETS[named])} only")
    if named in SETS:
        wanted = {name: count for name, count in SETS[named].items() if not classes or name in classes}
    else:
        aim = BALANCED_TO if named else balance_to or 0
        names = classes or sorted(real)
        wanted = {name: add if add is not None else max(0, aim - real.get(name, 0)) for name in names}
    for name in wanted:
        if name not in real:
            known = ", ".join(sorted(real)) or "none; give --label-regex or --labels"
            raise InputError(f"class {name}: has no training image (classes here: {known})")
    return {name: count for name, count in wanted.items() if count}


def check_cells(pool: Pool, real: Mapping[str, int], wanted: Mapping[str, int], red_cells: bool) -> None:
    """Refuse a class that composites are wanted of and that has no cell in the pool, and a pool without red cells.

    Args:
        pool: the parts.
        real: training images of each class.
        wanted: composites to make of each class.
        red_cells: whether they cannot be made without any.

    Raises:
        InputError: says what became of the images.
    """
    if wanted and not pool.pieces:
        why = ", ".join(f"{count:,} {reason}" for reason, count in pool.reasons().most_common(3))
        raise InputError(f"{pool.folder}: none of the images gave anything to the pool ({why}); see left-out.csv there")
    if red_cells and wanted and not pool.red_cells:
        raise InputError(
            f"{pool.folder}: none of {len(pool.pieces):,} fields gave a whole red cell; give --rbc 0, or masks with "
            "red cells (`wbctool segment` finds them by default)"
        )
    for name in wanted:
        if name not in pool.subjects:
            reasons = Counter(reason for _, label, reason in pool.left_out if label == name).most_common(1)
            told = f"most often: {reasons[0][0]}" if reasons else "they cannot be read, or the cut-outs were removed"
            raise InputError(
                f"class {name}: none of its {real[name]:,} training images gave a cell to the pool ({told}; "
                f"see {pool.folder}/left-out.csv); give more images, or leave it out with --classes"
            )


def planned(
    pool: Pool, wanted: Mapping[str, int], algorithm: str, red_cells: int | None, seed: int, out: Path
) -> Iterator[Record]:
    """A record for each composite to come, class by class, made as it is asked for.

    Every cell of a class is used once before any is used again.
    """
    names = _folders(wanted)
    for label, count in wanted.items():
        subjects = pool.subjects[label]
        folder, mark = names[label], zlib.crc32(label.encode())
        order: list[int] = []
        for index in range(count):
            turn, place = divmod(index, len(subjects))
            if not place:
                order = np.random.default_rng([seed, mark, 0, turn]).permutation(len(subjects)).tolist()
            piece = pool.pieces[subjects[order[place]]]
            record_id = f"{folder}/{algorithm}-{seed}-{index:07d}{'.jpg' if piece.is_jpeg else '.png'}"
            how = {"algorithm": algorithm, "seed": [seed, mark, 1, index], "rbc": red_cells}
            yield {
                "schema": IMAGE,
                "id": record_id,
                "path": f"{out}/{record_id}",
                "naturalize": {"cell": piece.id, **how},
            }


def _folders(labels: Iterable[str]) -> dict[str, str]:
    """A folder for each class, none of them one that the output has for itself."""
    found: dict[str, str] = {}
    for label in labels:
        name = safe_name(label)
        if name in _OWN or name.startswith(("records-", "run-")):
            name = "_" + name
        if name in found.values():
            name = f"{name}-{zlib.crc32(label.encode()):08x}"
        found[label] = name
    return found


_OWN = ("masks", "pool", "records.jsonl", "run.json")
