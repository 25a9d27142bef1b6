"""What is doubtful about the cells of an image: counts that a pipeline can filter by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

WARNINGS = {"giant_platelets": "giant platelets", "implausible_nuclei": "cells without a plausible nucleus"}
# A platelet is giant from this fraction of a red cell's area, or of a white cell's.
OF_RED, OF_WHITE = 0.8, 0.35
FEW = 3  # red cells needed to measure their area
LEAST_NUCLEUS, LEAST_QUALITY = 0.1, 0.5  # fraction of its cell that a plausible nucleus takes, and quality of the cell


def warnings_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return counts of what is doubtful in an image, those over 0.

    Args:
        cells: entries of a mask record.

    Returns:
        `no_white_cell`: 1 where there is none; `giant_platelets`: platelets over 0.8 of the median red cell's area, or,
        with fewer than three red cells, over 0.35 of a white cell's; `implausible_nuclei`: white cells of quality under
        0.5, or whose nucleus takes under a tenth of them.
    """
    by_kind = {kind: [cell for cell in cells if cell["kind"] == kind] for kind in ("wbc", "rbc", "platelet")}
    giant = _giant_area(by_kind)
    counts = {
        "no_white_cell": int(not by_kind["wbc"]),
        "giant_platelets": sum(cell["area"] > giant for cell in by_kind["platelet"]),
        "implausible_nuclei": sum(map(_is_implausible, by_kind["wbc"])),
    }
    return {name: count for name, count in counts.items() if count}


def _giant_area(by_kind: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    """The area from which a platelet is giant, pixels."""
    if len(by_kind["rbc"]) >= FEW:
        return OF_RED * median(cell["area"] for cell in by_kind["rbc"])
    return OF_WHITE * median(cell["area"] for cell in by_kind["wbc"]) if by_kind["wbc"] else float("inf")


def _is_implausible(cell: Mapping[str, Any]) -> bool:
    quality, nucleus = cell.get("quality"), cell.get("nucleus") or {"area": 0}
    return nucleus["area"] < LEAST_NUCLEUS * cell["area"] or (quality is not None and quality < LEAST_QUALITY)
