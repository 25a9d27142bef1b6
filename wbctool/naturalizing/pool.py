"""Reading the pool: the parts that fields of view were cut into.

Outliers, and parts that a person has removed, are not used.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from wbctool.records import ERROR, Record, group_of, with_absolute_paths
from wbctool.records.storage import atomic

LEFT_OUT = "left-out.csv"
# Keys that a composite inherits from the image of its cell, so that it counts as prepared like a real image.
INHERITED = ("split", "method", "constants", "enhance")
SIMILAR = 32  # number of similar fields among which one is drawn
_KEYS = {"light", "traits", "subject", "field", "red_cells"}  # of the parts of a field that can be used
_CACHE_BYTES = 256 << 20  # decoded parts that a process keeps
_SAMPLE = 2000  # fields from which it is estimated how often a field is similar to others
# Differences at which fields look different: grey levels of the background, optical density of red cells, log noise,
# log of the JPEG steps, log focus, fraction of the field under cells, log side of the cell.
_TOLERANCES = np.array([6.0, 6.0, 6.0, 0.08, 0.08, 0.08, 0.2, 0.1, 0.1, 0.15, 0.15])
_FAR = 5.0  # robust standard deviations from the class's median beyond which a cell is an outlier
_MIN_IMAGES = 10  # of a class, for a median
_CENTRED = 0.9  # fraction of images with their subject in the centre beyond which the others are outliers
_NAMES = {"wbc": "white cell", "platelet": "platelet"}
_REMAKE = "remove the pool to make it again"


@dataclass(frozen=True)
class PooledField:
    """A field of view in the pool, its parts as `cutting.cut_up` returns them, and what its composites inherit."""

    id: str
    label: str | None
    group: str
    size: tuple[int, int]
    cells: list[dict[str, Any]]
    parts: dict[str, Any]
    inherited: dict[str, Any]

    @property
    def illumination(self) -> np.ndarray:
        """Coefficients of its illumination, (6, 3)."""
        return np.array(self.parts["light"])

    @property
    def is_jpeg(self) -> bool:
        """Whether its image is coded as JPEG."""
        return self.parts["subject"]["exact"].endswith(".jpg")

    @property
    def appearance(self) -> list[float]:
        """What it must have in common with another field, on the scales of `_TOLERANCES`."""
        traits = self.parts["traits"]
        return [
            *traits["light"],
            *traits["stain"],
            np.log(traits["noise"] + 0.5),
            np.log(traits["steps"]),
            np.log(traits["focus"] + 0.5),
            traits["cover"],
            0.5 * np.log(self.parts["subject"]["area"]),
        ]


@dataclass
class Pool:
    """The fields of a pool, and which of their parts are available. Fields are meant by their index in `fields`.

    Attributes:
        left_out: id, class and reason of the images that cannot be used.
        removed: number of parts that a person has removed.
        failed: number of images that could not be read.
        subjects: by label, the fields whose cell is available.
        cleared: fields that are available without their cell.
        backgrounds: fields whose background is available.
        red_cells: the field and the entry of each red cell that is available.
    """

    folder: Path
    fields: list[PooledField] = field(default_factory=list)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    removed: int = 0
    failed: int = 0
    subjects: dict[str, list[int]] = field(default_factory=dict)
    cleared: list[int] = field(default_factory=list)
    backgrounds: list[int] = field(default_factory=list)
    red_cells: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    _cache: OrderedDict[str, Any] = field(default_factory=OrderedDict)
    _cached_bytes: int = 0

    @cached_property
    def appearance(self) -> np.ndarray:
        """The appearance of every field, scaled so that 1 is a visible difference, (fields, 11)."""
        return np.array([pooled.appearance for pooled in self.fields]) / _TOLERANCES

    @cached_property
    def properties(self) -> np.ndarray:
        """For every field whether it is a JPEG, whether its subject is a white cell, its width and height, and its
        number of red cells; (fields, 5)."""
        rows = [
            (p.is_jpeg, p.parts["subject"]["kind"] == "wbc", *p.size, sum(c["kind"] == "rbc" for c in p.cells))
            for p in self.fields
        ]
        return np.array(rows).reshape(-1, 5)

    @cached_property
    def popularity(self) -> np.ndarray:
        """For every field, 1 plus how often it is among the most similar of others: some look like many, (fields,)."""
        count = np.ones(len(self.fields))
        for index in np.random.default_rng(0).permutation(len(self.fields))[:_SAMPLE]:
            count[self.by_similarity(index, np.arange(len(self.fields)))[1 : SIMILAR + 1]] += 1
        return count

    @cached_property
    def index_of(self) -> dict[str, int]:
        """The index in `fields` by the id of the image."""
        return {pooled.id: index for index, pooled in enumerate(self.fields)}

    def by_similarity(self, index: int, others: np.ndarray) -> np.ndarray:
        """Return the order of other fields by their similarity to a field: indices in `others`, most similar first."""
        distance = ((self.appearance[others] - self.appearance[index]) ** 2).sum(1)
        return np.argsort(distance, kind="stable")

    def read_image(self, name: str) -> tuple[np.ndarray, JpegCoding | None]:
        """Read a field, background or window: RGB, float32, and its coding."""
        return self._cached(name, lambda path: read_field(str(path)))

    def read_labels(self, name: str) -> np.ndarray:
        """Read a label image."""
        return self._cached(name, read_labels)

    def read_cut_out(self, name: str) -> np.ndarray:
        """Read a cut-out: RGBA, shape (height, width, 4), uint8."""
        return self._cached(name, _read_rgba)

    def _cached(self, name: str, read: Callable[[Path], Any]) -> Any:
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        part = self._cache[name] = read(self.folder / name)
        array = _array_of(part)
        array.setflags(write=False)
        self._cached_bytes += array.nbytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= _array_of(self._cache.popitem(last=False)[1]).nbytes
        return part

    def has(self, *names: str) -> bool:
        """Return whether parts are available; a name that leads out of the pool is an `InputError`."""
        for name in names:
            if name.startswith("/") or ".." in name.split("/"):
                raise InputError(f"{self.folder}/records.jsonl: {name} lies outside the pool; {_REMAKE}")
        return all(os.path.exists(f"{self.folder}/{name}") for name in names)

    def add(self, pooled: PooledField) -> None:
        """Add a field with those of its parts that are available."""
        index = len(self.fields)
        self.fields.append(pooled)
        subject, scene = pooled.parts["subject"], pooled.parts["field"]
        if not self.has(subject["file"], subject["exact"], subject["mask"]):
            self.removed += 1
        elif pooled.label is not None:
            self.subjects.setdefault(pooled.label, []).append(index)
        if not self.has(scene["background"]):
            self.removed += 1
        else:
            self.backgrounds.append(index)
            if self.has(scene["file"], scene["mask"]):
                self.cleared.append(index)
            else:
                self.removed += 1
        red_cells = [cell for cell in pooled.parts["red_cells"] if self.has(cell["file"])]
        self.red_cells += [(index, cell) for cell in red_cells]
        self.removed += len(pooled.parts["red_cells"]) - len(red_cells)

    def write_left_out(self) -> None:
        """Write the table of the images that are left out."""
        with atomic(self.folder / LEFT_OUT, "w") as stream:
            csv.writer(stream, lineterminator="\n").writerows([("image", "label", "reason"), *self.left_out])

    def reasons(self) -> Counter[str]:
        """Count the images that are left out by reason."""
        return Counter("cannot be read" if not label and ": " in why else why for _, label, why in self.left_out)


def read_pool(folder: Path) -> Pool:
    """Read a finished pool; there is an `InputError` without one, or if it is damaged."""
    pool = Pool(folder.resolve())
    fields: list[PooledField] = []
    for record in _read_records(pool.folder):
        if record["schema"] == ERROR:
            pool.failed += 1
            pool.left_out.append((record["id"], "", record["error"]))
        elif "left_out" in record["pool"]:
            pool.left_out.append((record["id"], record.get("label") or "", record["pool"]["left_out"]))
        else:
            inherited = {key: record[key] for key in INHERITED if key in record}
            label, size, cells = record.get("label") or None, tuple(record["size"]), record["cells"]
            fields.append(PooledField(record["id"], label, group_of(record), size, cells, record["pool"], inherited))
    labelled = [index for index, pooled in enumerate(fields) if pooled.label is not None]
    outliers = find_outliers([{**fields[index].parts["subject"], "label": fields[index].label} for index in labelled])
    reasons = {labelled[number]: reason for number, reason in outliers.items()}
    for index, pooled in enumerate(fields):
        if index in reasons:
            pool.left_out.append((pooled.id, pooled.label or "", reasons[index]))
        else:
            pool.add(pooled)
    return pool


def _read_records(folder: Path) -> Iterator[Record]:
    path = folder / "records.jsonl"
    if not path.exists():
        raise InputError(f"{path}: missing; {_REMAKE}")
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                record = json.loads(line)
                if not _is_complete(record):
                    raise ValueError("keys are missing")
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path} line {number}: damaged; {_REMAKE}") from None
            yield with_absolute_paths(record, folder)


def _is_complete(record: Record) -> bool:
    if record["schema"] == ERROR:
        return "error" in record
    return {"size", "cells", "id"} <= set(record) and ("left_out" in record["pool"] or set(record["pool"]) >= _KEYS)


def _read_rgba(path: Path) -> np.ndarray:
    image, _ = decode_unchanged(path.read_bytes())
    if image is None or image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        raise ImageError(f"{path}: is not an RGBA cut-out; remove it, or remove the pool to make it again")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)


def _array_of(part: Any) -> np.ndarray:
    return part[0] if isinstance(part, tuple) else part


def find_outliers(subjects: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Find subjects that are probably not the cell that their label means; return the reasons, by index.

    Subjects have a `label`, `kind`, `area` and `nucleus` (areas in pixels; 0 without a nucleus), and `central`, whether
    they lie in the centre of their image.
    """
    outliers: dict[int, str] = {}
    indices_of: dict[str, list[int]] = defaultdict(list)
    for index, subject in enumerate(subjects):
        indices_of[subject["label"]].append(index)
    centred = len(subjects) >= _MIN_IMAGES and np.mean([subject["central"] for subject in subjects]) > _CENTRED
    for label, indices in indices_of.items():
        usual, count = Counter(subjects[index]["kind"] for index in indices).most_common(1)[0]
        for index in indices:
            kind = subjects[index]["kind"]
            if kind != usual and count > len(indices) / 2:
                outliers[index] = f"a {_NAMES[kind]} in {label}, where most are {_NAMES[usual]}s"
            elif centred and not subjects[index]["central"]:
                outliers[index] = "its cell is not in the middle, where nearly all have theirs"
        inner = [index for index in indices if index not in outliers]
        if len(inner) < _MIN_IMAGES:
            continue
        area, nucleus = (np.array([subjects[index][key] for index in inner]) for key in ("area", "nucleus"))
        measures = {"size of the cell": np.log(area), "relative size of the nucleus": np.log(nucleus / area + 0.01)}
        for name, values in measures.items():
            deviation = np.abs(values - np.median(values))
            limit = _FAR * (1.4826 * np.median(deviation) + 0.02)
            for number in np.flatnonzero(deviation > limit):
                outliers[inner[number]] = f"{name} is far from that of {label}"
    return outliers
