"""All that is measured of one cell, as a vector with names."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from wbctool.measuring.colour import colours
from wbctool.measuring.shape import shapes
from wbctool.measuring.texture import textures
from wbctool.measuring.view import View, view_of
from wbctool.records import Record

_PARTS = (shapes, colours, textures)


def measured(view: View) -> dict[str, float]:
    """Shape, colour and texture of a cell, by name; what its regions do not allow is left out."""
    return {name: value for part in _PARTS for name, value in part(view).items()}


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The names of all measures, in their order: those of a cell with nucleus, then those of one without."""
    image = np.full((64, 64, 3), 200, np.uint8)
    discs = [cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), radius, 1, -1).astype(bool) for radius in (20, 10)]
    return tuple({**measured(View(image, *discs)), **measured(View(image, discs[0], None))})


def vector_of(record: Record) -> np.ndarray:
    """The measures of a record's cell.

    Args:
        record: of a cell, or of a field with its mask; see `view_of`.

    Returns:
        Shape (measures,), float32, in the order of `names()`; NaN for what is missing: all without a mask.

    Raises:
        ImageError: image or mask cannot be read, or do not fit.
    """
    view = view_of(record)
    found = measured(view) if view else {}
    return np.array([found.get(name, np.nan) for name in names()], np.float32)


def family_of(name: str) -> str:
    """To what a measure belongs: `cell shape`, `nucleus shape`, `colour` or `texture`."""
    first = name.split(".")[0]
    return f"{first} shape" if first in ("cell", "nucleus") else first
