"""Segment Anything (Kirillov et al. 2023): its automatic masks, sorted into cells by colour and size."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from wbctool.pipeline.parameters import parameter
from wbctool.segmentation.method import Image, Method, Objects, Splitting

PANEL = "Segment Anything"


class SamParameters(Splitting):
    """Weights of Segment Anything, its grid of points, and where it runs."""

    sam_checkpoint: str | None = parameter(None, "Weights (.pth).", form="FILE", panel=PANEL)
    sam_model: Literal["vit_b", "vit_l", "vit_h"] = parameter("vit_b", "Its architecture.", panel=PANEL)
    sam_points: int = parameter(32, "Points a side.", low=1, high=128, panel=PANEL)
    device: str = parameter("auto", "Where to compute.", form="auto|cpu|cuda", panel=PANEL)

    @field_validator("sam_checkpoint")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        return path and str(Path(path).absolute())  # as records are read in other folders, too


def prepare(parameters: SamParameters) -> None:
    """Load the weights."""
    from wbctool.segmentation.sam import load

    load(parameters.sam_checkpoint, parameters.sam_model, parameters.device)


def find(image: Image, parameters: SamParameters) -> Objects:
    """Find white cells with nuclei, red cells and platelets; each mask is one object already."""
    from wbctool.segmentation.sam import automatic_masks, load, sort_masks

    model = load(parameters.sam_checkpoint, parameters.sam_model, parameters.device)
    return sort_masks(image, automatic_masks(model, image, parameters.sam_points))


SAM = Method(
    "sam",
    "masks of Segment Anything, sorted by colour and size",
    "Segment Anything (Kirillov et al. 2023); sorted as in the Naturalize paper",
    find,
    SamParameters,
    objects="whole white cells, red cells and platelets",
    prepare=prepare,
    jobs=1,  # one model in memory, and one on the GPU
    not_recorded=("device",),
)
