"""Planning: how many composites of each class, and of which cell each. No image is read, so a million cost little."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from wbctool.errors import InputError, counted
from wbctool.inputs.dataset import file_state
from wbctool.naturalizing.options import CompositeOptions
from wbctool.naturalizing.pool import INHERITED, Pool
from wbctool.pipeline.names import safe_name
from wbctool.records import ERROR, IMAGE, MASK, Record, to_line
from wbctool.records.composites import is_composite

_RESERVED = ("masks", "pool", "records.jsonl", "run.json")  # names in an output folder
_IDENTITY = ("id", "path", "label", "group", "size", "cells", *INHERITED)


def training_fields(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """Return the records, of one or more, that composites may be made of, and a line for each kind that is left out.

    If any record has a split, only those of `train` are used. An `InputError` says that there are none, or that some
    have no mask, masks of nuclei only, or are composites.
    """
    fields: list[Record] = []
    errors = 0
    for record in records:
        if record["schema"] == ERROR:
            errors += 1
        elif is_composite(record):
            raise InputError(f"{record['id']}: is a composite itself; give the records of real images")
        elif record["schema"] != MASK or not record.get("mask") or "size" not in record:
            raise InputError(f"{record['id']}: has no mask; run `wbctool segment` first")
        else:
            fields.append(record)
    left_out = [counted(errors, "error record")] if errors else []
    if any(record.get("split") for record in fields):
        others = Counter(record.get("split") or "no split" for record in fields if record.get("split") != "train")
        left_out += [f"{counted(count, 'image')} of {split}" for split, count in others.items()]
        fields = [record for record in fields if record.get("split") == "train"]
    if not fields:
        raise InputError(f"no training image to make composites of: {', '.join(left_out)}")
    white_cells = [cell for record in fields for cell in record["cells"] if cell["kind"] == "wbc"]
    if white_cells and all((cell.get("nucleus") or {}).get("area") == cell["area"] for cell in white_cells):
        raise InputError(
            f"the masks hold nuclei only (method {fields[0].get('method')}), and composites need whole cells; "
            "run `wbctool segment` with its default method into another folder"
        )
    return fields, left_out


def digest_of(records: Iterable[Record]) -> str:
    """Return 32 hexadecimal digits that depend on the images, masks, labels and groups, not on their order."""
    total = 0
    for record in records:
        files = [file_state(record["path"]), file_state(record["mask"])]
        line = to_line({**{key: record.get(key) for key in _IDENTITY}, "files": files})
        total ^= int.from_bytes(hashlib.blake2b(line.encode(), digest_size=16).digest(), "big")
    return f"{total:032x}"


def check_pool(pool: Pool, real: Mapping[str, int], wanted: Iterable[str], needs_red_cells: bool) -> None:
    """Refuse a pool without a cell of each wanted class, or a red cell where one is needed, by an `InputError`.

    It gives the reasons for which images were left out, of the real training images of the class.
    """
    for name in wanted:
        if not pool.fields:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in pool.reasons().most_common(3))
            raise InputError(f"{pool.folder}: none of the images can be used ({reasons}); see left-out.csv there")
        if needs_red_cells and not pool.red_cells:
            raise InputError(
                f"{pool.folder}: none of {len(pool.fields):,} fields gave a whole red cell; give --rbc 0, or masks "
                "with red cells (`wbctool segment` finds them by default)"
            )
        if name not in pool.subjects:
            most = Counter(reason for _, label, reason in pool.left_out if label == name).most_common(1)
            reasons = f"most often: {most[0][0]}" if most else "they cannot be read, or the cut-outs were removed"
            raise InputError(
                f"class {name}: none of its {real[name]:,} training images gave a cell to the pool ({reasons}; "
                f"see {pool.folder}/left-out.csv); give more images, or leave it out with --classes"
            )


def plan_composites(pool: Pool, amounts: Mapping[str, int], options: CompositeOptions, out: Path) -> Iterator[Record]:
    """Plan composites class by class, one record each; the output folder is absolute.

    All cells of a class are used once before any is used again.
    """
    folders = _class_folders(amounts)
    for label, count in amounts.items():
        subjects, label_seed = pool.subjects[label], zlib.crc32(label.encode())
        order: list[int] = []
        for number in range(count):
            turn, index = divmod(number, len(subjects))
            if not index:
                order = np.random.default_rng([options.seed, label_seed, 0, turn]).permutation(len(subjects)).tolist()
            donor = pool.fields[subjects[order[index]]]
            name = f"{options.algorithm}-{options.seed}-{number:07d}{'.jpg' if donor.is_jpeg else '.png'}"
            seed = [options.seed, label_seed, 1, number]
            plan = {"cell": donor.id, "algorithm": options.algorithm, "seed": seed, "rbc": options.rbc}
            record_id = f"{folders[label]}/{name}"
            yield {"schema": IMAGE, "id": record_id, "path": f"{out}/{record_id}", "naturalize": plan}


def _class_folders(labels: Iterable[str]) -> dict[str, str]:
    """Return a folder name for each class, none of them a name that the output folder uses itself."""
    folders: dict[str, str] = {}
    for label in labels:
        name = safe_name(label)
        if name in _RESERVED or name.startswith(("records-", "run-")):
            name = "_" + name
        if name in folders.values():
            name = f"{name}-{zlib.crc32(label.encode()):08x}"
        folders[label] = name
    return folders
