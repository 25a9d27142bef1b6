"""What is doubtful about the cells of an image: counts that a pipeline can filter by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

WARNINGS = {"giant_platelets": "giant platelets", "implausible_nuclei": "cells without a plausible nucleus"}
GIANT = 0.8  # areas of a red cell, or 0.35 of a white one, from which a platelet is giant
OF_WHITE = 0.35
FEW = 3  # red cells that suffice to measure one
NUCLEUS = (0.1, 0.5)  # least fraction of its cell that a nucleus takes, and least quality


def warnings_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return counts of what is doubtful in an image, those over 0.

    Args:
        cells: entries of a mask record.

    Returns:
        `no_white_cell`: 1 where there is none; `giant_platelets`: platelets as large as a red cell, or, where none is
        seen, a third of a white one; `implausible_nuclei`: white cells of low quality or with hardly any nucleus.
    """
    of = {kind: [cell for cell in cells if cell["kind"] == kind] for kind in ("wbc", "rbc", "platelet")}
    counts = {
        "no_white_cell": int(not of["wbc"]),
        "giant_platelets": sum(cell["area"] > _largest_platelet(of) for cell in of["platelet"]),
        "implausible_nuclei": sum(map(_is_implausible, of["wbc"])),
    }
    return {name: count for name, count in counts.items() if count}


def _largest_platelet(of: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    """The area from which a platelet is giant, pixels."""
    if len(of["rbc"]) >= FEW:
        return GIANT * median(cell["area"] for cell in of["rbc"])
    return OF_WHITE * median(cell["area"] for cell in of["wbc"]) if of["wbc"] else float("inf")


def _is_implausible(cell: Mapping[str, Any]) -> bool:
    fraction, quality = NUCLEUS
    has_little = cell.get("nucleus", {}).get("area", 0) < fraction * cell["area"]
    return has_little or cell.get("quality", 1.0) < quality
