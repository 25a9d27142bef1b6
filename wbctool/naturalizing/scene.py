"""A composite on its way: its pixels, its label image, and what was done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from wbctool.imaging.jpeg import JpegCoding
from wbctool.naturalizing.cutting import CELL, NUCLEUS


@dataclass
class Scene:
    """A composite.

    Attributes:
        image: RGB, shape (height, width, 3), float32, on the scale of 0 to 255.
        labels: shape (height, width), int32; 0 is background.
        cells: by value: `kind`, and `whole` of red cells.
        coding: how its file is to be coded; None for PNG.
        how: what was done, for the record: sources, turns, places.
    """

    image: np.ndarray
    labels: np.ndarray
    coding: JpegCoding | None
    cells: dict[int, dict[str, Any]] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.labels.shape[1], self.labels.shape[0]

    def add(self, kind: str, mask: np.ndarray, place: tuple[int, int], **more: Any) -> int:
        """Draw an object into the label image, over what is there; its value.

        Args:
            kind: `wbc`, `rbc` or `platelet`.
            mask: of its window, (height, width); where it equals NUCLEUS is a white cell's nucleus.
            place: x, y of the window.
            more: further keys of its entry in `cells`.
        """
        value = 1 + max((v + ("nucleus" in cell) for v, cell in self.cells.items()), default=0)
        window = self.labels[place[1] : place[1] + mask.shape[0], place[0] : place[0] + mask.shape[1]]
        window[mask == CELL] = value
        self.cells[value] = {"kind": kind, **more}
        if (mask == NUCLEUS).any():
            window[mask == NUCLEUS] = value + 1
            self.cells[value]["nucleus"] = True
        return value

    def described(self) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """The label image as it is written, and the `cells` of the record: what can be seen of each object.

        White cells come first, then platelets, then red cells, numbered from 1; one that is covered is gone.
        """
        height, width = self.labels.shape
        top = max(v + 1 for v in self.cells) if self.cells else 0
        table = np.zeros(top + 2, np.int32)
        listed, value = [], 1
        order = sorted(self.cells, key=lambda v: (("wbc", "platelet", "rbc").index(self.cells[v]["kind"]), v))
        windows = ndimage.find_objects(self.labels, max_label=top)
        for old in order:
            cell = self.cells[old]
            found = [window for window in windows[old - 1 : old + ("nucleus" in cell)] if window]
            if not found:
                continue
            y, x = (min(window[axis].start for window in found) for axis in (0, 1))
            high, wide = (max(window[axis].stop for window in found) - at for axis, at in ((0, y), (1, x)))
            part = self.labels[y : y + high, x : x + wide]
            mask = (part == old) | (part == old + 1) if "nucleus" in cell else part == old
            moments = cv2.moments(mask.astype(np.uint8), binaryImage=True)
            area = int(moments["m00"])
            edge = x == 0 or y == 0 or x + wide == width or y + high == height
            entry: dict[str, Any] = {
                "value": value,
                "kind": cell["kind"],
                "bbox": [x, y, wide, high],
                "area": area,
                "centroid": [round(at + moments[of] / area, 1) for at, of in ((x, "m10"), (y, "m01"))],
                "edge": edge,
            }
            table[old] = value
            if "nucleus" in cell:
                table[old + 1] = value + 1
                entry["nucleus"] = {"value": value + 1, "area": int((part == old + 1).sum())}
            if cell["kind"] == "rbc":
                entry["whole"] = bool(cell.get("whole") and not edge and area == cell["area"])
            listed.append(entry)
            value += 1 + ("nucleus" in cell)
        return table[self.labels].astype(np.uint8 if value <= 256 else np.uint16), listed


def turned(array: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight symmetries: `turn` % 4 quarter turns counter-clockwise; from 4 on mirrored, too."""
    array = np.rot90(array, turn % 4)
    return np.ascontiguousarray(array[:, ::-1] if turn >= 4 else array)
