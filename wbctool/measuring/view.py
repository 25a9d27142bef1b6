"""The pixels and the mask of a record's cell, at the scale of its source image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from wbctool.errors import ImageError
from wbctool.imaging.colour import background_colour, optical_density
from wbctool.imaging.files import read_image, read_labels
from wbctool.records import Record
from wbctool.records.cells import choose_cells

_AROUND = 0.3  # of a cell's box, kept about it, where background is visible
_SIDES = (1, 4096)  # limits of a measured crop, pixels


@dataclass(frozen=True)
class CellView:
    """A cell in its surroundings: RGB, and masks (height, width), bool."""

    image: np.ndarray
    cell: np.ndarray  # with its nucleus
    nucleus: np.ndarray | None  # where one is known

    @cached_property
    def density(self) -> np.ndarray:
        """Absorbance of each channel, shape (height, width, 3)."""
        return optical_density(self.image, background_colour(self.image))

    @cached_property
    def regions(self) -> dict[str, np.ndarray]:
        """`nucleus` and `cytoplasm`, or `cell` where no nucleus is known; those that have pixels."""
        if self.nucleus is None:
            return {"cell": self.cell}
        cytoplasm = self.cell & ~self.nucleus
        return {"nucleus": self.nucleus, **({"cytoplasm": cytoplasm} if cytoplasm.any() else {})}


def view_of(record: Record) -> CellView | None:
    """Return the cell of a cropped record; of a whole field the one that `crop` takes by default. None without a mask.

    A crop is scaled back to the pixels of its source, so that all cells are measured at one scale.

    Raises:
        ImageError: image or mask cannot be read, do not fit, or the mask lacks the cell.
    """
    if not isinstance(record.get("mask"), str):
        return None
    if "value" in record:
        cell = {"value": record["value"], "nucleus": record.get("nucleus")}
    else:
        chosen = choose_cells(record, None, "central")
        if not chosen:
            return None
        cell = chosen[0]
    image = read_image(record["path"])
    labels = read_labels(record["mask"], (image.shape[1], image.shape[0]))
    nucleus = labels == cell["nucleus"]["value"] if cell.get("nucleus") else np.zeros(labels.shape, bool)
    whole = (labels == cell["value"]) | nucleus
    if not whole.any():
        again = f"make the mask again with `wbctool {'crop' if 'crop' in record else 'segment'}`"
        raise ImageError(f"{record['mask']}: has no value {cell['value']}, the cell of its record; {again}")
    if "crop" in record and "value" in record:
        return _rescaled(image, whole, nucleus, record)
    x, y, width, height = cv2.boundingRect(whole.astype(np.uint8))
    beside, above = round(width * _AROUND), round(height * _AROUND)
    window = slice(max(0, y - above), y + height + above), slice(max(0, x - beside), x + width + beside)
    return _view(image[window], whole[window], nucleus[window])


def _rescaled(image: np.ndarray, cell: np.ndarray, nucleus: np.ndarray, record: Record) -> CellView:
    width, height = (int(np.clip(round(side), *_SIDES)) for side in record["bbox"][2:])
    if (height, width) == cell.shape:
        return _view(image, cell, nucleus)
    way = cv2.INTER_AREA if width <= image.shape[1] and height <= image.shape[0] else cv2.INTER_LINEAR
    resized = [
        cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
        for mask in (cell, nucleus)
    ]
    if not resized[0].any():
        raise ImageError(f"{record['id']}: its cell is too small to be measured")
    return _view(cv2.resize(image, (width, height), interpolation=way), *resized)


def _view(image: np.ndarray, cell: np.ndarray, nucleus: np.ndarray) -> CellView:
    return CellView(np.ascontiguousarray(image), cell, nucleus if nucleus.any() else None)
