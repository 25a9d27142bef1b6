"""The parameters of cropping."""

from __future__ import annotations

from typing import Literal

from wbctool.pipeline.parameters import Parameters, parameter

MARGINS = {"roi": 0.3, "box": 0.0}


class CropParameters(Parameters):
    """Which cells are cropped, by which window, and what size the crops have."""

    method: Literal["roi", "box"] = parameter("roi", "A square about the cell, or its bounding box stretched.")
    margin: float | None = parameter(
        None, "Added about the cell, as a fraction of its size. (roi 0.3, box 0)", low=0, high=10
    )
    size: int = parameter(224, "Side of the crops.", low=8, high=4096, form="PX")
    kind: Literal["wbc", "platelet", "rbc", "any"] | None = parameter(None, "What to crop.")
    which: Literal["central", "largest", "all"] = parameter("central", "Which of an image's cells.")
    edge: Literal["keep", "drop"] = parameter("keep", "Cells cut by the image's edge.")
    min_quality: float = parameter(0.0, "Leave out chosen cells of less quality.", low=0, high=1, form="Q")
    denoise: Literal["nlm"] | None = parameter(None, "Denoise crops by non-local means.")
