"""The folder step `segment`: images in, label images and mask records out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from wbctool.imaging.files import read_image, write_png
from wbctool.imaging.label_image import to_labels
from wbctool.pipeline.parameters import Parameters
from wbctool.pipeline.runner import run_step
from wbctool.pipeline.step import Execution, Outcome, Step, parse_shard, same_id
from wbctool.records import MASK, Record
from wbctool.records.selection import Selection
from wbctool.segmentation.coco import CocoFile
from wbctool.segmentation.image_warnings import warnings_of
from wbctool.segmentation.method import METHODS, Method, Splitting
from wbctool.segmentation.overlay import overlay

_MADE = ("schema", "size", "method", "seconds", "mask", "warnings", "cells", "constants")


@dataclass
class SegmentationResult:
    """What `segment_images` found."""

    outcome: Outcome = field(default_factory=Outcome)
    objects: Counter[str] = field(default_factory=Counter)  # of each kind: `wbc`, `platelet`, `rbc`
    images: Counter[str] = field(default_factory=Counter)  # with such an object, or such a warning
    warnings: Counter[str] = field(default_factory=Counter)  # counts of `image_warnings.warnings_of`

    def count(self, record: Record) -> None:
        """Count the objects of a mask record; others are ignored."""
        if "cells" in record:
            kinds = Counter(cell["kind"] for cell in record["cells"])
            self.objects.update(kinds)
            self.images.update(kinds.keys())
            warnings = record.get("warnings", {})
            self.warnings.update(warnings)
            self.images.update(warnings.keys())


def segment_images(
    inputs: Sequence[str],
    out: Path,
    method: str = "unet",
    parameters: Mapping[str, Any] | None = None,
    *,
    overlays: bool = False,
    coco: Path | None = None,
    selection: Selection | None = None,
    execution: Execution | None = None,
) -> SegmentationResult:
    """Find white cells with their nuclei, red cells and platelets in images.

    Writes a label image per image, `records.jsonl` and `run.json` into `out`; a rerun skips what is done.

    Args:
        inputs: folders, images, record files, or `-` for records on stdin.
        out: output folder.
        method: name of a method in `METHODS`.
        parameters: of the method, by name, that are not to have their default.
        overlays: also draw outlines on each image, into `overlays/`.
        coco: also write COCO annotations into this file.
        selection: labels, groups and classes; by default labels are folder names.
        execution: processes, shard, scheduler, and what is printed.

    Raises:
        UsageProblem: a method, parameter or file that cannot be used.
        InputError: no images, or the method lacks what it needs, such as weights.
    """
    chosen = METHODS.get(method, "--method")
    execution = execution or Execution()
    execution = execution.model_copy(update={"jobs": execution.jobs or chosen.jobs})
    step = _step(chosen, chosen.configured(parameters or {}), overlays)
    annotations = CocoFile(coco, out, parse_shard(execution.shard)) if coco else None
    result = SegmentationResult()

    def on_record(record: Record) -> None:
        result.count(record)
        if annotations:
            annotations.add(record)

    result.outcome = run_step(step, inputs, out, selection or Selection(), execution, on_record)
    if annotations:
        annotations.write()
    return result


def step_of(preparation: Mapping[str, Any]) -> Step:
    """The step that segments images as those of a run were: with its `method`, and the constants not at their default.

    Raises `UsageProblem` for an unknown method or constant, `InputError` where the method lacks its weights.
    """
    method = METHODS.get(preparation["method"], "--method")
    constants = {name: value for name, value in preparation.items() if name != "method"}
    split = not Splitting.model_fields.keys().isdisjoint(constants)
    return _step(method, method.configured({**constants, "split_touching": split}), overlays=False)


def _step(method: Method, parameters: Parameters, overlays: bool) -> Step:
    if method.prepare:
        method.prepare(parameters)
    return Step(
        name="segment",
        settings={"method": method.name, **method.settings(parameters), "overlay": overlays},
        expected=same_id,
        work=partial(_segment, method, parameters, overlays),
        compose=_replaced,
        made=_MADE,
        reserved=("overlays",),
    )


def _replaced(record: Record, made: Record) -> Record:
    """The record of the input with what this run made, and nothing of an earlier segmentation."""
    return {key: value for key, value in {**record, **made}.items() if key in made or key not in _MADE}


def _segment(
    method: Method, parameters: Parameters, overlays: bool, record: Record, folder: Path, name: str
) -> list[Record]:
    image = read_image(record["path"])
    start = time.perf_counter()
    objects = method.find(image, parameters)
    labels, cells = to_labels(objects, image.shape[:2])
    seconds = round(time.perf_counter() - start, 4)
    mask = folder / f"{name}.png"
    write_png(mask, labels)
    if overlays:
        write_png(folder / "overlays" / f"{name}.png", overlay(image, objects))
    result: Record = {
        "schema": MASK,
        "size": [image.shape[1], image.shape[0]],
        "method": method.name,
        "seconds": seconds,
        "mask": str(mask),
    }
    if warnings := warnings_of(cells):
        result["warnings"] = warnings
    result["cells"] = cells
    constants = method.constants(parameters)
    return [{**result, "constants": constants} if constants else result]
