"""The folder step `segment`: images in, label images and mask records out."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from wbctool.errors import UsageProblem
from wbctool.imaging.files import read_image, write_png
from wbctool.records import MASK, Record
from wbctool.segmentation import METHODS, find_objects
from wbctool.segmentation.objects import to_labels
from wbctool.steps import Step

_MADE = ("schema", "size", "method", "seconds", "mask", "cells")


def segment_step(method: str) -> Step:
    """The step for one method.

    Raises:
        UsageProblem: no method has that name.
    """
    if method not in METHODS:
        raise UsageProblem(f"--method {method}: choose from {', '.join(METHODS)}")
    return Step(
        name="segment",
        settings={"method": method},
        expected=lambda record: {record["id"]},
        work=partial(_segment, method),
        compose=lambda record, made: {**record, **made},
        made=_MADE,
    )


def _segment(method: str, record: Record, folder: Path, name: str) -> list[Record]:
    image = read_image(record["path"])
    start = time.perf_counter()
    labels, cells = to_labels(find_objects(image, method), image.shape[:2])
    seconds = round(time.perf_counter() - start, 4)
    mask = folder / f"{name}.png"
    write_png(mask, labels)
    made = {
        "schema": MASK,
        "size": [image.shape[1], image.shape[0]],
        "method": method,
        "seconds": seconds,
        "mask": str(mask),
        "cells": cells,
    }
    return [made]
