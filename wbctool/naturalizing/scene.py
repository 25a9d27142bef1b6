"""A composite while it is composed: its pixels, its label image, and what was done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from wbctool.imaging.jpeg import JpegCoding
from wbctool.imaging.label_image import Region, cell_entry
from wbctool.naturalizing.cutting import CELL, NUCLEUS

_ORDER = ("wbc", "platelet", "rbc")  # in which a record lists its cells


@dataclass
class Scene:
    """A composite: its image, RGB, (height, width, 3), float32, and its label image, (height, width), int32.

    Attributes:
        coding: how the file is to be coded; None for PNG.
        cells: `kind` by value, and of red cells `whole` and `area`.
        provenance: what was done, for the record: sources, symmetries, positions.
    """

    image: np.ndarray
    labels: np.ndarray
    coding: JpegCoding | None
    cells: dict[int, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.labels.shape[1], self.labels.shape[0]

    def add(self, kind: str, mask: np.ndarray, position: tuple[int, int], **more: Any) -> None:
        """Draw a cell into the label image, over what is there, with `more` in its entry in `cells`.

        The mask of its window has the values CELL and NUCLEUS; the position is x and y of the window.
        """
        value = 1 + max((v + ("nucleus" in cell) for v, cell in self.cells.items()), default=0)
        window = self.labels[position[1] : position[1] + mask.shape[0], position[0] : position[0] + mask.shape[1]]
        window[mask == CELL] = value
        self.cells[value] = {"kind": kind, **more}
        if (mask == NUCLEUS).any():
            window[mask == NUCLEUS] = value + 1
            self.cells[value]["nucleus"] = True

    def describe(self) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Return the label image as it is written, and the `cells` of the record.

        White cells come first, then platelets, then red cells, numbered from 1. Only what is visible of a cell counts;
        one that is covered is left out.
        """
        top = max(v + 1 for v in self.cells) if self.cells else 0
        new_values = np.zeros(top + 2, np.int32)
        entries, value = [], 1
        windows = ndimage.find_objects(self.labels, max_label=top)
        for old in sorted(self.cells, key=lambda v: (_ORDER.index(self.cells[v]["kind"]), v)):
            values = [old, old + 1] if "nucleus" in self.cells[old] else [old]
            visible = [windows[v - 1] for v in values if windows[v - 1]]
            if visible:
                rows, columns = (
                    slice(min(w[axis].start for w in visible), max(w[axis].stop for w in visible)) for axis in (0, 1)
                )
                labels, cell = self.labels[rows, columns], self.cells[old]
                mask = ((labels >= values[0]) & (labels <= values[-1])).astype(np.uint8)
                region = Region(columns.start, rows.start, mask)
                entry = cell_entry(mask, region, value, cell["kind"], self.labels.shape)
                if "nucleus" in cell:
                    entry["nucleus"] = {"value": value + 1, "area": int((labels == values[1]).sum())}
                if cell["kind"] == "rbc":
                    entry["whole"] = bool(cell.get("whole") and not entry["edge"] and entry["area"] == cell["area"])
                entries.append(entry)
                new_values[values] = range(value, value + len(values))
                value += len(values)
        return new_values[self.labels].astype(np.uint8 if value <= 256 else np.uint16), entries


def apply_symmetry(array: np.ndarray, symmetry: int) -> np.ndarray:
    """Apply one of the eight symmetries of the square: `symmetry` % 4 quarter turns, mirrored from 4 on."""
    array = np.rot90(array, symmetry % 4)
    return np.ascontiguousarray(array[:, ::-1] if symmetry >= 4 else array)


def placement(symmetry: int, x: int, y: int) -> dict[str, Any]:
    """Return how and where a cut-out was placed, for the record; `turn` is in degrees, counter-clockwise."""
    return {"turn": symmetry % 4 * 90, "mirrored": symmetry >= 4, "at": [x, y]}
