"""Which pictures a panel shows of one image, a row for each method; and sheets of many panels."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from wbctool.console import warn
from wbctool.errors import ImageError
from wbctool.explaining import METHODS
from wbctool.explaining.explained_run import ExplainedRun, Explanation
from wbctool.explaining.panels import (
    DIVERGING,
    GREEN,
    HEAT,
    INK,
    RED,
    Colour,
    Panel,
    Tile,
    as_tile,
    difference_map,
    heat_map,
    outlined,
    overlay,
    sheet_of,
)
from wbctool.explaining.regions import Regions
from wbctool.imaging.files import read_image, write_png
from wbctool.pipeline.names import safe_name
from wbctool.records import Record

CORRECT, INCORRECT, UNLABELLED = "right", "wrong", "unlabelled"  # folders of sheets


def panel_of(
    record: Record,
    image: np.ndarray,
    regions: Regions | None,
    runs: Sequence[ExplainedRun],
    explanations: Sequence[Explanation],
) -> np.ndarray:
    """Draw the panel of one image: RGB, uint8.

    Args:
        record: of the image.
        image: as the first run takes it, (size, size, 3), uint8.
        regions: of that size, or None.
        runs: the run, and the one it is compared with.
        explanations: by these runs.
    """
    panel = Panel(record["id"])
    label = record.get("label")
    explained_class = runs[0].run.classes[explanations[0].class_number]
    for number, method in enumerate(explanations[0].maps):
        title = f"{method} for {explained_class}" if METHODS.get(method).depends_on_class else method
        text = [(f"label {label}" if label is not None else "no label", INK)] if number == 0 else []
        original = Tile(outlined(as_tile(image), regions), text)
        maps = [_resized(one.maps[method], runs[0].size) for one in explanations]
        overlays = [
            Tile(overlay(image, map_, regions), _caption(name, label, run, explanation, method))
            for name, run, explanation, map_ in zip(_names(runs), runs, explanations, maps, strict=True)
        ]
        if len(runs) == 1:
            heat = outlined(as_tile(heat_map(maps[0])), regions)
            overlays[-1].bar = (HEAT, "0", "1")
            panel.rows.append([original, Tile(heat, [(title, INK), (_layers(runs[0], method), INK)]), *overlays])
        else:
            difference = outlined(as_tile(difference_map(maps[1] - maps[0])), regions, bright=True)
            layers = " − ".join(_layers(run, method) for run in reversed(runs))
            lines = [(f"{title}: 2nd − 1st", INK), (layers, INK)]
            panel.rows.append([original, *overlays, Tile(difference, lines, (DIVERGING, "−1", "+1"))])
    return panel.draw()


def _names(runs: Sequence[ExplainedRun]) -> list[str]:
    """Return the names of the runs' folders, or their paths where two names are the same."""
    names = [run.run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [run.name for run in runs]


def _resized(map_: np.ndarray, size: int) -> np.ndarray:
    return map_ if len(map_) == size else cv2.resize(map_, (size, size), interpolation=cv2.INTER_LINEAR)


def _layers(run: ExplainedRun, method: str) -> str:
    return ", ".join(run.explainer.explained_layers(method))


def _caption(
    name: str, label: str | None, run: ExplainedRun, explanation: Explanation, method: str
) -> list[tuple[str, Colour]]:
    """Return what a run predicts, and which fractions of the map lie in nucleus and cell."""
    best = int(explanation.probabilities.argmax())
    predicted = run.run.classes[best]
    colour = INK if label is None else GREEN if predicted == label else RED
    energy = explanation.scores[method].get("energy", {})
    fractions = [f"{region} {energy[region]:.0%}" for region in ("nucleus", "cell") if energy.get(region) is not None]
    return [(f"{name}: {predicted} {explanation.probabilities[best]:.2f}", colour), (", ".join(fractions), INK)]


class Sheets:
    """Random panels of each class, those of correct and incorrect predictions apart.

    Args:
        limit: panels on a sheet, at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[tuple[str, str], list[tuple[int, str, str]]] = defaultdict(list)
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, record: Record) -> None:
        """Take the panel of a record into account; the hash of its id decides whether a sheet shows it."""
        label = record.get("label")
        folder = UNLABELLED if label is None else CORRECT if record["predicted"] == label else INCORRECT
        key = (folder, record["predicted"] if label is None else label)
        digest = hashlib.blake2b(record["id"].encode(), digest_size=8).digest()
        heapq.heappush(self._kept[key], (-int.from_bytes(digest, "little"), record["id"], record["panel"]))
        self._counts[key] += 1
        if len(self._kept[key]) > self._limit:
            heapq.heappop(self._kept[key])

    def write(self, out: Path, about: str) -> None:
        """Write `right/CLASS.png`, `wrong/CLASS.png` and `unlabelled/CLASS.png`, and remove those of earlier runs."""
        for folder in (CORRECT, INCORRECT, UNLABELLED):
            for old in (out / folder).glob("*.png"):
                old.unlink()
        taken: set[Path] = set()
        for (folder, label), kept in sorted(self._kept.items()):
            panels = _read_panels([path for _, _, path in sorted(kept, key=lambda entry: entry[1])])
            name = safe_name(label)
            while out / folder / f"{name}.png" in taken:  # labels that differ in characters no file name may have
                name += "_"
            file = out / folder / f"{name}.png"
            taken.add(file)
            title = f"{name}, {folder}: {len(panels)} of {self._counts[folder, label]:,}  ({about})"
            if panels:
                write_png(file, sheet_of(title, panels))


def _read_panels(paths: Sequence[str]) -> list[np.ndarray]:
    panels = []
    for path in paths:
        try:
            panels.append(read_image(path))
        except ImageError as error:
            warn(f"{error}; remove it and run again")
    return panels
