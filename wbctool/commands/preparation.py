"""The steps that prepare smear fields as the images of a run were prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wbctool.cropping import CropParameters
from wbctool.cropping.step import step_of as crop_step_of
from wbctool.enhancing.step import step_of as enhance_step_of
from wbctool.errors import InputError, UsageProblem
from wbctool.pipeline.parameters import checked
from wbctool.pipeline.step import Step
from wbctool.segmentation.step import step_of as segment_step_of


def steps_of(kind: str, edge: str, preparation: Mapping[str, Any], run: str) -> list[Step]:
    """Return the steps that make such cells, all of a field's.

    Args:
        preparation: as a run folder keeps it (`records.preparation_of`).
        kind: of the cells: `wbc`, `platelet`, `rbc` or `any`.
        edge: `keep` or `drop` those that the image's edge cuts.
        run: the run folder, for errors.

    Raises:
        UsageProblem: no such kind or edge.
        InputError: the run was trained on whole images, or its preparation cannot be read.
    """
    crop, segment, enhance = (preparation.get(key) for key in ("crop", "segment", "enhance"))
    if not crop or not segment or not segment.get("method"):
        raise InputError(f"{run}: was trained on images as they were given, not on cropped cells; leave out --fields")
    checked(CropParameters, {"kind": kind, "edge": edge}, "--{}".format)
    try:
        steps = [enhance_step_of(enhance)] if enhance else []
        return [*steps, segment_step_of(segment), crop_step_of(crop, kind, edge)]
    except (UsageProblem, TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{run}/model.json: its preparation is damaged ({error}); train it again") from None
