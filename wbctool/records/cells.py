"""Choosing cells of a field of view."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from typing import Any

from wbctool.errors import ImageError
from wbctool.records import Record


def choose_cells(
    record: Record, kind: str | None, which: str, edge: str = "keep", min_quality: float = 0.0
) -> list[dict[str, Any]]:
    """Return the cells of a mask record that are to be cropped, in its order.

    `kind` is `wbc`, `platelet`, `rbc` or `any`; None takes white cells, or platelets where there are none. `which` is
    `central` (nearest the image's centre), `largest` or `all`; `edge` keeps or drops cells that the image's edge cuts.
    Cells of less than `min_quality` are left out; those without a quality stay. A record without a mask is an
    `ImageError`.
    """
    if "cells" not in record or not record.get("mask") or not record.get("size"):
        raise ImageError(f"{record['id']}: has no mask; run `wbctool segment` on it first")
    cells = [cell for cell in record["cells"] if edge == "keep" or not cell.get("edge")]
    if kind is None:
        chosen = [c for c in cells if c["kind"] == "wbc"] or [c for c in cells if c["kind"] == "platelet"]
    else:
        chosen = [c for c in cells if kind in ("any", c["kind"])]
    if which == "largest" and chosen:
        chosen = [max(chosen, key=lambda cell: cell["area"])]
    elif which == "central" and chosen:
        chosen = [central(chosen, record["size"])]
    return [cell for cell in chosen if cell.get("quality") is None or cell["quality"] >= min_quality]


def central(cells: Sequence[dict[str, Any]], size: Sequence[int]) -> dict[str, Any]:
    """Return the cell, of one or more, whose centroid is nearest the centre of an image of this (width, height)."""
    width, height = size
    return min(cells, key=lambda cell: hypot(cell["centroid"][0] - width / 2, cell["centroid"][1] - height / 2))
