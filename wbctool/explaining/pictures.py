"""What a panel shows of one image: a row of pictures for each method; and sheets of many panels."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from wbctool.console import warn
from wbctool.errors import ImageError
from wbctool.explaining import OF_NO_CLASS
from wbctool.explaining.panels import (
    DIVERGING,
    HEAT,
    INK,
    RIGHT,
    WRONG,
    Panel,
    Tile,
    diverging,
    heat,
    outlined,
    over,
    resized,
    sheet_of,
)
from wbctool.explaining.subject import Finding, Subject
from wbctool.imaging.files import read_image, write_png
from wbctool.pipeline.names import safe_name
from wbctool.records import Record

RIGHT_ONES, WRONG_ONES, UNLABELLED = "right", "wrong", "unlabelled"  # folders of sheets


def panel_of(
    record: Record,
    image: np.ndarray,
    regions: Mapping[str, np.ndarray] | None,
    subjects: Sequence[Subject],
    findings: Sequence[Finding],
) -> np.ndarray:
    """The panel of one image: RGB, uint8.

    Args:
        record: of the image.
        image: as the first run sees it, (size, size, 3), uint8.
        regions: of that size, or None.
        subjects: the run, and the one it is compared with.
        findings: what they found.
    """
    label = record.get("label")
    panel = Panel(record["id"])
    names = _names(subjects)
    explained = subjects[0].run.classes[findings[0].chosen]
    for number, method in enumerate(findings[0].maps):
        told = [(f"label {label}" if label is not None else "no label", INK)] if number == 0 else []
        about = method if method in OF_NO_CLASS else f"{method} for {explained}"
        maps = [_at(one.maps[method], subjects[0].size) for one in findings]
        row = [Tile(outlined(resized(image), regions), told)]
        if len(subjects) == 1:
            lines = [(about, INK), (_layers(subjects[0], method), INK)]
            row.append(Tile(outlined(resized(heat(maps[0])), regions), lines))
        for name, subject, found, map_ in zip(names, subjects, findings, maps, strict=True):
            row.append(Tile(over(image, map_, regions), _lines(name, label, subject, found, method)))
        row[-1].bar = (HEAT, "0", "1")
        if len(subjects) > 1:
            row[-1].bar = None
            apart = outlined(resized(diverging(maps[1] - maps[0])), regions, bright=True)
            lines = [(f"{about}: 2nd − 1st", INK), (" − ".join(_layers(s, method) for s in reversed(subjects)), INK)]
            row.append(Tile(apart, lines, (DIVERGING, "−1", "+1")))
        panel.rows.append(row)
    return panel.drawn()


def _names(subjects: Sequence[Subject]) -> list[str]:
    """The runs' names, in full where their folders' are the same."""
    short = [subject.run.path.resolve().name for subject in subjects]
    return short if len(set(short)) == len(short) else [subject.name for subject in subjects]


def _at(map_: np.ndarray, size: int) -> np.ndarray:
    """A map at another side."""
    return map_ if len(map_) == size else cv2.resize(map_, (size, size), interpolation=cv2.INTER_LINEAR)


def _layers(subject: Subject, method: str) -> str:
    explainer = subject.explainer
    return ", ".join(explainer.gates if method == "attention" else explainer.layers)


def _lines(
    name: str, label: str | None, subject: Subject, found: Finding, method: str
) -> list[tuple[str, tuple[int, int, int]]]:
    """Who predicted what, and how much of the map lies where."""
    best = int(found.shares.argmax())
    predicted = subject.run.classes[best]
    colour = INK if label is None else RIGHT if predicted == label else WRONG
    energy = found.figures[method].get("energy", {})
    parts = [f"{name} {energy[name]:.0%}" for name in ("nucleus", "cell") if energy.get(name) is not None]
    return [(f"{name}: {predicted} {found.shares[best]:.2f}", colour), (", ".join(parts), INK)]


class Sheets:
    """Panels of each class, right and wrong predictions apart, drawn by the chance of their ids.

    Args:
        limit: panels on a sheet, at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[tuple[str, str], list[tuple[int, str, str]]] = defaultdict(list)
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, record: Record) -> None:
        """Take a record with its panel into account."""
        label = record.get("label")
        side = UNLABELLED if label is None else RIGHT_ONES if record["predicted"] == label else WRONG_ONES
        key = (side, record["predicted"] if label is None else label)
        digest = hashlib.blake2b(record["id"].encode(), digest_size=8).digest()
        heapq.heappush(self._kept[key], (-int.from_bytes(digest, "little"), record["id"], record["panel"]))
        self._counts[key] += 1
        if len(self._kept[key]) > self._limit:
            heapq.heappop(self._kept[key])

    def write(self, folder: Path, about: str) -> None:
        """Write `right/CLASS.png`, `wrong/CLASS.png` and `unlabelled/CLASS.png`, and remove those there were."""
        for side in (RIGHT_ONES, WRONG_ONES, UNLABELLED):
            for old in (folder / side).glob("*.png"):
                old.unlink()
        taken: set[Path] = set()
        for (side, label), kept in sorted(self._kept.items()):
            panels = []
            for _, _, path in sorted(kept, key=lambda one: one[1]):
                try:
                    panels.append(read_image(path))
                except ImageError as error:
                    warn(f"{error}; remove it and run again")
            name = safe_name(label)
            while folder / side / f"{name}.png" in taken:  # of labels that differ in what no file name may hold
                name += "_"
            taken.add(folder / side / f"{name}.png")
            title = f"{name}, {side}: {len(panels)} of {self._counts[side, label]:,}  ({about})"
            if panels:
                write_png(folder / side / f"{name}.png", sheet_of(title, panels))
