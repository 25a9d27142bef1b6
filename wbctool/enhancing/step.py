"""The folder step `enhance`: images in, enhanced images and their records out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from wbctool.enhancing.parameters import EnhanceParameters
from wbctool.errors import ImageError, UsageProblem
from wbctool.imaging.enhancement import StainProfile, clahe, non_local_means, reinhard
from wbctool.imaging.files import read_image, write_png
from wbctool.pipeline.parameters import checked
from wbctool.pipeline.runner import run_step
from wbctool.pipeline.step import Execution, Outcome, Step, added, same_id
from wbctool.records import Record
from wbctool.records.selection import Selection
from wbctool.records.storage import write_json


class EnhanceResult(NamedTuple):
    """Counts of inputs and records; and the constants of each step by its name, in the order of application."""

    outcome: Outcome
    steps: dict[str, dict[str, Any]]


def enhance_images(
    inputs: Sequence[str],
    out: Path,
    parameters: EnhanceParameters | None = None,
    reinhard: Path | None = None,
    *,
    selection: Selection | None = None,
    execution: Execution | None = None,
) -> EnhanceResult:
    """Denoise images, bring their stain to that of a reference, and even out their contrast, in this order.

    Writes enhanced images, `records.jsonl`, `run.json` and, with a reference, `profile.json` into `out`; a rerun skips
    what is done.

    Args:
        inputs: folders, images, record files, or `-` for records on stdin.
        out: output folder.
        parameters: contrast and noise; by default neither is changed.
        reinhard: reference image, or the `profile.json` of an enhanced folder; None for no normalisation.
        selection: labels, groups and classes; by default labels are folder names.
        execution: processes, shard, scheduler, and what is printed.

    Raises:
        UsageProblem: a parameter or output folder that cannot be used, or nothing to do.
        InputError: no images, or no such reference.
    """
    profile = StainProfile.read(reinhard) if reinhard else None
    step = _step(parameters or EnhanceParameters(), profile)
    outcome = run_step(step, inputs, out, selection or Selection(), execution or Execution())
    if profile:
        write_json(out / "profile.json", profile.as_json())
    return EnhanceResult(outcome, step.settings)


def step_of(preparation: Mapping[str, Any]) -> Step:
    """The step that enhances images as those of a run were: with the `enhance` of their records."""
    denoise, stain, contrast = (preparation.get(name) for name in ("denoise", "reinhard", "clahe"))
    parameters: dict[str, Any] = {}
    if denoise:
        parameters |= {"denoise": denoise["method"], "strength": denoise["strength"]}
    if contrast:
        parameters |= {"clahe": True, **contrast}
    profile = StainProfile(mean=stain["mean"], std=stain["std"]) if stain else None
    return _step(checked(EnhanceParameters, parameters, "--{}".format), profile)


def _step(parameters: EnhanceParameters, profile: StainProfile | None) -> Step:
    steps: dict[str, Any] = {}
    if parameters.denoise:
        steps["denoise"] = {"method": parameters.denoise, "strength": parameters.strength}
    if profile:
        steps["reinhard"] = {"mean": list(profile.mean), "std": list(profile.std)}
    if parameters.clahe:
        steps["clahe"] = {"clip": parameters.clip, "tiles": parameters.tiles}
    if not steps:
        raise UsageProblem("nothing to do; give --clahe, --reinhard REF or --denoise nlm")
    return Step(
        name="enhance",
        settings=steps,
        expected=same_id,
        work=partial(_enhance, parameters, profile, steps),
        compose=added,
        made=("path", "original", "enhance"),
        origin="original",
    )


def _enhance(
    parameters: EnhanceParameters,
    profile: StainProfile | None,
    steps: dict[str, Any],
    record: Record,
    folder: Path,
    name: str,
) -> list[Record]:
    if record.get("enhance"):
        raise ImageError(f"{record['path']}: was enhanced before; enhance its original, or leave it as it is")
    image = read_image(record["path"])
    if parameters.denoise:
        image = non_local_means(image, parameters.strength)
    if profile:
        image = reinhard(image, profile)
    if parameters.clahe:
        image = clahe(image, parameters.clip, parameters.tiles)
    path = folder / f"{name}.png"
    write_png(path, image)
    return [{"path": str(path), "original": record["path"], "enhance": steps}]
