"""The folder step `segment`: images in, label images and mask records out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from wbctool.imaging.files import read_image, write_png
from wbctool.imaging.label_image import to_labels
from wbctool.pipeline.step import Step, added, same_id
from wbctool.records import MASK, Record
from wbctool.segmentation import check_ready, find_objects, settings_of
from wbctool.segmentation.overlay import overlay

_MADE = ("schema", "size", "method", "seconds", "mask", "cells", "constants")


def segment_step(method: str, given: Mapping[str, Any] | None = None, overlays: bool = False) -> Step:
    """The step for one method.

    Args:
        method: a key of `METHODS`.
        given: its constants that are not to have their defaults.
        overlays: also draw outlines on each image, into `overlays/`.

    Raises:
        UsageProblem: no method has that name, or no such constant.
        InputError: what the method needs is not there, or is something else.
    """
    settings = settings_of(method, given or {})
    check_ready(method, settings)
    usual = settings_of(method, {})
    changed = [key for key, value in settings.items() if key not in usual or usual[key] != value]
    return Step(
        name="segment",
        settings={"method": method, **_plain(settings), "overlay": overlays},
        expected=same_id,
        work=partial(_segment, method, settings, _plain({k: settings[k] for k in settings if k in changed}), overlays),
        compose=added,
        made=_MADE,
        reserved=("overlays",),
    )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives them back; where it was computed is no setting of what is found."""
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in settings.items() if key != "device"
    }


def _segment(
    method: str,
    settings: dict[str, Any],
    changed: dict[str, Any],
    overlays: bool,
    record: Record,
    folder: Path,
    name: str,
) -> list[Record]:
    image = read_image(record["path"])
    start = time.perf_counter()
    objects = find_objects(image, method, settings)
    labels, cells = to_labels(objects, image.shape[:2])
    seconds = round(time.perf_counter() - start, 4)
    mask = folder / f"{name}.png"
    write_png(mask, labels)
    if overlays:
        write_png(folder / "overlays" / f"{name}.png", overlay(image, objects))
    made = {
        "schema": MASK,
        "size": [image.shape[1], image.shape[0]],
        "method": method,
        "seconds": seconds,
        "mask": str(mask),
        "cells": cells,
    }
    if changed:
        made["constants"] = changed
    return [made]
