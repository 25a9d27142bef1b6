"""The pool: what fields were taken apart into, read back. A file that a person has removed is not in it."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wbctool.errors import ImageError, InputError
from wbctool.imaging.files import decode_unchanged, read_labels
from wbctool.imaging.jpeg import JpegCoding
from wbctool.naturalizing.cutting import read_field
from wbctool.naturalizing.subjects import odd_ones
from wbctool.records import ERROR, Record, group_of, with_absolute_paths
from wbctool.records.storage import write_bytes

_PARTS = {"light", "traits", "subject", "field", "red_cells"}  # of a field that serves
LEFT_OUT = "left-out.csv"
_HELD = 256 << 20  # bytes of decoded parts that a process keeps at hand
# What was done to the image, so that composites and real images count as prepared alike.
CARRIED = ("split", "method", "constants", "enhance")
NEAREST = 32  # fields like a cell's own among which one is drawn
_ASKED = 2000  # pieces by which it is told how often others are near
# How far apart traits may lie before fields look different: grey levels of the slide, optical density of red
# cells, log noise, log of the JPEG steps, share of the field under cells, log side of the cell.
_TOLERANCES = np.array([6.0, 6.0, 6.0, 0.08, 0.08, 0.08, 0.2, 0.1, 0.1, 0.15, 0.15])


@dataclass(frozen=True)
class Piece:
    """A field in the pool: its record's identity and what was made of it.

    Attributes:
        id, label, group: of the image.
        size: its width and height in pixels.
        cells: of its record.
        parts: what `cutting.take_apart` noted.
        carried: the keys that a composite takes over from the image of its white cell.
    """

    id: str
    label: str | None
    group: str
    size: tuple[int, int]
    cells: list[dict[str, Any]]
    parts: dict[str, Any]
    carried: dict[str, Any]

    @property
    def light(self) -> np.ndarray:
        """Coefficients of its light, (6, 3)."""
        return np.array(self.parts["light"])

    @property
    def is_jpeg(self) -> bool:
        """Whether its image is coded as JPEG."""
        return self.parts["subject"]["exact"].endswith(".jpg")


@dataclass
class Pool:
    """All pieces, and which of their parts stand.

    Attributes:
        folder: where it lies.
        pieces: of the images that serve, in the order of their records.
        left_out: id, class and reason of the images that do not.
        pruned: how many parts a person has removed.
        failed: images that could not be read.
        subjects: by label, numbers of the pieces whose cut-out stands.
        fields: numbers of the pieces whose field without its cell stands.
        backgrounds: numbers of those whose background stands.
        red_cells: number of the piece and entry of each red cell that stands.
    """

    folder: Path
    pieces: list[Piece] = field(default_factory=list)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    pruned: int = 0
    failed: int = 0
    subjects: dict[str, list[int]] = field(default_factory=dict)
    fields: list[int] = field(default_factory=list)
    backgrounds: list[int] = field(default_factory=list)
    red_cells: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    _cache: OrderedDict[str, Any] = field(default_factory=OrderedDict)
    _held: int = 0

    @cached_property
    def traits(self) -> np.ndarray:
        """Of every piece, on the scale on which 1 is a visible difference, (pieces, traits)."""
        rows = [
            [
                *piece.parts["traits"]["light"],
                *piece.parts["traits"]["stain"],
                np.log(piece.parts["traits"]["noise"] + 0.5),
                np.log(piece.parts["traits"]["steps"]),
                np.log(piece.parts["traits"]["focus"] + 0.5),
                piece.parts["traits"]["cover"],
                0.5 * np.log(piece.parts["subject"]["area"]),
            ]
            for piece in self.pieces
        ]
        return np.array(rows) / _TOLERANCES

    @cached_property
    def columns(self) -> np.ndarray:
        """Of every piece whether it is a JPEG, whether its subject is a white cell, its width and height, and how many
        red cells it has; (pieces, 5)."""
        rows = [
            (p.is_jpeg, p.parts["subject"]["kind"] == "wbc", *p.size, sum(c["kind"] == "rbc" for c in p.cells))
            for p in self.pieces
        ]
        return np.array(rows).reshape(-1, 5)

    @cached_property
    def wanted_by(self) -> np.ndarray:
        """Of every piece, 1 and how often it is among the nearest of others: some fields look like many, (pieces,)."""
        count = np.ones(len(self.pieces))
        asked = np.random.default_rng(0).permutation(len(self.pieces))[:_ASKED]
        for number in asked:
            far = ((self.traits - self.traits[number]) ** 2).sum(1)
            count[np.argsort(far, kind="stable")[1 : NEAREST + 1]] += 1
        return count

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The place in `pieces` of an image's id."""
        return {piece.id: number for number, piece in enumerate(self.pieces)}

    def image(self, name: str) -> tuple[np.ndarray, JpegCoding | None]:
        """A field, background or window of the pool: RGB, float32, and its coding."""
        return self._part(name, lambda: read_field(str(self.folder / name)))

    def labels(self, name: str) -> np.ndarray:
        """A label image of the pool."""
        return self._part(name, lambda: read_labels(self.folder / name))

    def cut_out(self, name: str) -> np.ndarray:
        """A cut-out: RGBA, shape (height, width, 4), uint8."""
        return self._part(name, lambda: _read_rgba(self.folder / name))

    def _part(self, name: str, read: Any) -> Any:
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        part = read()
        array = part[0] if isinstance(part, tuple) else part
        array.setflags(write=False)
        self._cache[name] = part
        self._held += array.nbytes
        while self._held > _HELD and len(self._cache) > 1:
            dropped = self._cache.popitem(last=False)[1]
            self._held -= (dropped[0] if isinstance(dropped, tuple) else dropped).nbytes
        return part

    def write_left_out(self) -> None:
        """List the images that are kept out in a table."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("image", "label", "reason"))
        writer.writerows(self.left_out)
        write_bytes(self.folder / LEFT_OUT, stream.getvalue().encode())

    def reasons(self) -> Counter[str]:
        """How many images are kept out, by reason."""
        return Counter("cannot be read" if not label and ": " in why else why for _, label, why in self.left_out)


def _read_rgba(path: Path) -> np.ndarray:
    image, _ = decode_unchanged(path.read_bytes())
    if image is None or image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        raise ImageError(f"{path}: is no RGBA cut-out any more; remove it, or make the pool anew")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)


def read_pool(folder: Path) -> Pool:
    """Read a finished pool.

    Raises:
        InputError: there is none, or it is damaged.
    """
    pool = Pool(folder.resolve())
    found: list[Piece] = []
    for record in _records(pool.folder):
        if record["schema"] == ERROR:
            pool.failed += 1
            pool.left_out.append((record["id"], "", record["error"]))
            continue
        parts = record["pool"]
        if "left_out" in parts:
            pool.left_out.append((record["id"], record.get("label") or "", parts["left_out"]))
            continue
        found.append(
            Piece(
                record["id"],
                record.get("label") or None,
                group_of(record),
                tuple(record["size"]),
                record["cells"],
                parts,
                {key: record[key] for key in CARRIED if key in record},
            )
        )
    odd = odd_ones([{**p.parts["subject"], "label": p.label} for p in found if p.label is not None])
    labelled = [place for place, piece in enumerate(found) if piece.label is not None]
    odd = {labelled[k]: why for k, why in odd.items()}
    for place, piece in enumerate(found):
        if place in odd:
            pool.left_out.append((piece.id, piece.label or "", odd[place]))
        else:
            _take(pool, piece)
    return pool


def _take(pool: Pool, piece: Piece) -> None:
    number = len(pool.pieces)
    pool.pieces.append(piece)
    subject, scene = piece.parts["subject"], piece.parts["field"]
    if not _stand(pool, subject["file"], subject["exact"], subject["mask"]):
        pool.pruned += 1
    elif piece.label is not None:
        pool.subjects.setdefault(piece.label, []).append(number)
    if not _stand(pool, scene["background"]):
        pool.pruned += 1
    else:
        pool.backgrounds.append(number)
        if _stand(pool, scene["file"], scene["mask"]):
            pool.fields.append(number)
        else:
            pool.pruned += 1
    for cell in piece.parts["red_cells"]:
        if _stand(pool, cell["file"]):
            pool.red_cells.append((number, cell))
        else:
            pool.pruned += 1


def _stand(pool: Pool, *names: str) -> bool:
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(
                f"{pool.folder}/records.jsonl: {name} lies outside the pool; remove the pool to make it anew"
            )
    return all(os.path.exists(f"{pool.folder}/{name}") for name in names)


def _records(folder: Path) -> Iterator[Record]:
    path = folder / "records.jsonl"
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    record = json.loads(line)
                    if record["schema"] == ERROR:
                        whole = {"error"} <= set(record)
                    else:
                        whole = {"size", "cells", "id"} <= set(record) and (
                            "left_out" in record["pool"] or set(record["pool"]) >= _PARTS
                        )
                    if not whole:
                        raise ValueError("parts are missing")
                except (ValueError, KeyError, TypeError):
                    raise InputError(f"{path} line {number}: damaged; remove the pool to make it anew") from None
                yield with_absolute_paths(record, folder)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; remove the pool to make it anew") from None
