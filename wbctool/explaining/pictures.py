"""What a panel shows of one image: a row of pictures for each method; and sheets of many panels."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from wbctool.errors import ImageError
from wbctool.explaining.panels import (
    BACK,
    DIVERGING,
    GAP,
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
)
from wbctool.explaining.subject import Finding, Subject
from wbctool.imaging.files import read_image, write_png
from wbctool.outputs import safe_name
from wbctool.records import Record

COLUMNS = 2  # of panels on a sheet


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
    first = subjects[0]
    name = first.run.classes[findings[0].chosen]
    for number, method in enumerate(findings[0].maps):
        told = [(f"label {label}" if label is not None else "no label", INK)] if number == 0 else []
        row = [Tile(outlined(resized(image), regions), told)]
        tiles = [
            Tile(over(image, resized_map(one.maps[method], first.size), regions), _lines(label, subject, one, method))
            for subject, one in zip(subjects, findings, strict=True)
        ]
        if len(subjects) == 1:
            shown = heat(findings[0].maps[method])
            row += [Tile(shown, [(f"{method} for {name}", INK), (_layers(first, method), INK)]), tiles[0]]
            row[-1].bar = (HEAT, "0", "1")
        else:
            maps = [resized_map(one.maps[method], first.size) for one in findings]
            told = [(f"{method} for {name}: 2nd − 1st", INK), ("red: more in the second", INK)]
            row += [*tiles, Tile(diverging(maps[1] - maps[0]), told, (DIVERGING, "−1", "+1"))]
        panel.rows.append(row)
    return panel.drawn()


def resized_map(map_: np.ndarray, size: int) -> np.ndarray:
    """A map at another side."""
    return map_ if len(map_) == size else cv2.resize(map_, (size, size), interpolation=cv2.INTER_LINEAR)


def _layers(subject: Subject, method: str) -> str:
    explainer = subject.explainer
    return ", ".join(explainer.gates if method == "attention" else explainer.layers)


def _lines(label: str | None, subject: Subject, found: Finding, method: str) -> list[tuple[str, tuple[int, int, int]]]:
    """Who predicted what, and how much of the map lies where."""
    best = int(found.shares.argmax())
    predicted = subject.run.classes[best]
    colour = INK if label is None else RIGHT if predicted == label else WRONG
    lines = [(f"{subject.run.path.name}: {predicted} {found.shares[best]:.2f}", colour)]
    energy = found.figures[method].get("energy", {})
    parts = [f"{name} {energy[name]:.0%}" for name in ("nucleus", "cell") if energy.get(name) is not None]
    return [*lines, (", ".join(parts), INK)]


class Sheets:
    """Panels of each class, right and wrong predictions apart, drawn by the chance of their ids.

    Args:
        limit: panels on a sheet, at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[tuple[str, str], list[tuple[int, str, str]]] = defaultdict(list)

    def add(self, record: Record) -> None:
        """Take a record with its panel into account."""
        label = record.get("label")
        side = "unlabelled" if label is None else "right" if record["predicted"] == label else "wrong"
        kept = self._kept[side, safe_name(record["predicted"] if label is None else label)]
        digest = hashlib.blake2b(record["id"].encode(), digest_size=8).digest()
        heapq.heappush(kept, (-int.from_bytes(digest, "little"), record["id"], record["panel"]))
        if len(kept) > self._limit:
            heapq.heappop(kept)

    def write(self, folder: Path) -> int:
        """Write `right/CLASS.png`, `wrong/CLASS.png` and `unlabelled/CLASS.png`; how many there are."""
        for (side, name), kept in sorted(self._kept.items()):
            panels = []
            for _, _, path in sorted(kept, key=lambda one: one[1]):
                try:
                    panels.append(read_image(path))
                except ImageError:
                    continue
            write_png(folder / side / f"{name}.png", _sheet(panels))
        return len(self._kept)


def _sheet(panels: Sequence[np.ndarray]) -> np.ndarray:
    height = max(panel.shape[0] for panel in panels)
    width = max(panel.shape[1] for panel in panels)
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    page = np.full((rows * (height + GAP), columns * (width + GAP), 3), BACK, np.uint8)
    for number, panel in enumerate(panels):
        y, x = (number // columns) * (height + GAP), (number % columns) * (width + GAP)
        page[y : y + panel.shape[0], x : x + panel.shape[1]] = panel
    return page
