"""All measures of one cell, as a vector with names."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from wbctool.measuring.colour import colours
from wbctool.measuring.shape import shapes
from wbctool.measuring.texture import textures
from wbctool.measuring.view import CellView, view_of
from wbctool.records import Record


def measure(view: CellView) -> dict[str, float]:
    """Measure shape, colour and texture of a cell, by name; measures of a missing nucleus are left out."""
    return {**shapes(view), **colours(view), **textures(view)}


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Return the names of all measures, in order: those of a cell with nucleus, then those of one without."""
    image = np.full((64, 64, 3), 200, np.uint8)
    discs = [cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), radius, 1, -1).astype(bool) for radius in (20, 10)]
    return tuple({**measure(CellView(image, *discs)), **measure(CellView(image, discs[0], None))})


def vector_of(record: Record) -> np.ndarray:
    """Measure the cell of a record, see `view_of`: shape (measures,), float32, in the order of `names()`.

    NaN where a measure is missing, all without a mask.
    """
    view = view_of(record)
    measures = measure(view) if view else {}
    return np.array([measures.get(name, np.nan) for name in names()], np.float32)


def family_of(name: str) -> str:
    """Return the family of a measure: `cell shape`, `nucleus shape`, `colour` or `texture`."""
    first = name.split(".")[0]
    return f"{first} shape" if first in ("cell", "nucleus") else first
