"""The steps that prepare smear fields as the images of a run were prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wbctool.cropping.step import CropOptions, crop_step
from wbctool.enhancing.step import EnhanceOptions, enhance_step
from wbctool.errors import InputError
from wbctool.imaging.enhancement import StainProfile
from wbctool.pipeline.step import Step
from wbctool.segmentation.step import segment_step


def steps_of(kind: str, edge: str, preparation: Mapping[str, Any], run: str) -> list[Step]:
    """The steps that make such cells, all of a field's.

    Args:
        preparation: as a run folder keeps it (`records.preparation_of`).
        kind: of the cells: `wbc`, `platelet`, `rbc` or `any`.
        edge: `keep` or `drop` those that the image's edge cuts.
        run: the run folder, for errors.

    Raises:
        InputError: the run was trained on whole images, or its preparation cannot be read.
    """
    crop, segment, enhance = (preparation.get(key) for key in ("crop", "segment", "enhance"))
    if not crop or not segment or not segment.get("method"):
        raise InputError(f"{run}: was trained on images as they were given, not on cropped cells; leave out --fields")
    steps = []
    try:
        if enhance:
            steps.append(enhance_step(_enhancing(enhance)))
        constants = {key: tuple(v) if isinstance(v, list) else v for key, v in segment.items() if key != "method"}
        steps.append(segment_step(segment["method"], constants))
        cells = {"kind": kind, "which": "all", "edge": edge}
        steps.append(crop_step(CropOptions(**{**crop, **cells})))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{run}/model.json: its preparation is damaged ({error}); train it again") from None
    return steps


def _enhancing(done: Mapping[str, Any]) -> EnhanceOptions:
    denoise, colours, contrast = done.get("denoise"), done.get("reinhard"), done.get("clahe")
    options: dict[str, Any] = {}
    if denoise:
        options |= {"denoise": denoise["method"], "strength": denoise["strength"]}
    if colours:
        options["profile"] = StainProfile(tuple(colours["mean"]), tuple(colours["std"]))
    if contrast:
        options |= {"clahe": True, "clip": contrast["clip"], "tiles": contrast["tiles"]}
    return EnhanceOptions(**options)
