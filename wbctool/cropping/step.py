"""The folder step `crop`: mask records in, one image and mask per cell out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wbctool.cropping.parameters import MARGINS, CropParameters
from wbctool.errors import ImageError, InputError
from wbctool.imaging.enhancement import non_local_means
from wbctool.imaging.files import read_image, read_labels, write_png
from wbctool.pipeline.parameters import checked
from wbctool.pipeline.runner import run_step
from wbctool.pipeline.step import Execution, Outcome, Step
from wbctool.records import CELL, IMAGE, MASK, Record, cell_id
from wbctool.records.cells import choose_cells
from wbctool.records.selection import Selection

Window = tuple[int, int, int, int]  # x, y, width, height in pixels of the image
# Keys of a field's record that do not hold for a cell cropped from it.
_OF_THE_FIELD = ("size", "seconds", "mask", "cells", "warnings")


@dataclass
class CropResult:
    """What `crop_cells` cropped."""

    outcome: Outcome = field(default_factory=Outcome)
    kinds: Counter[str] = field(default_factory=Counter)  # cells of each kind: `wbc`, `platelet`, `rbc`
    labels: Counter[str] = field(default_factory=Counter)  # cells of each class; `(no label)` for those without one
    empty: int = 0  # images without such a cell

    def count(self, record: Record) -> None:
        """Count a cell, or an image without one."""
        if "value" in record:
            self.kinds[record["kind"]] += 1
            self.labels[record.get("label") or "(no label)"] += 1
        else:
            self.empty += "cells" in record


def crop_cells(
    inputs: Sequence[str],
    out: Path,
    parameters: CropParameters | None = None,
    *,
    selection: Selection | None = None,
    execution: Execution | None = None,
) -> CropResult:
    """Crop one image, and its mask, per cell.

    Writes crops, their masks (into `masks/`), `records.jsonl` and `run.json` into `out`; a rerun skips what is done.

    Args:
        inputs: folders with masks, files of mask records, or `-` for records on stdin.
        out: output folder.
        parameters: which cells, by which window, and what size; by default the white cell nearest the centre.
        selection: labels, groups and classes; by default those of the records.
        execution: processes, shard, scheduler, and what is printed.

    Raises:
        UsageProblem: a parameter or output folder that cannot be used.
        InputError: no records, or records without masks.
    """
    step = crop_step(parameters or CropParameters())
    result = CropResult()
    result.outcome = run_step(step, inputs, out, selection or Selection(), execution or Execution(), result.count)
    return result


def step_of(preparation: Mapping[str, Any], kind: str, edge: str) -> Step:
    """The step that crops all cells of a kind in a field as those of a run were: with the `crop` of their records."""
    parameters = {**preparation, "kind": kind, "which": "all", "edge": edge}
    return crop_step(checked(CropParameters, parameters, "--{}".format))


def crop_step(parameters: CropParameters) -> Step:
    """The step for some parameters; without a margin the method's own is used."""
    if parameters.margin is None:
        parameters = parameters.model_copy(update={"margin": MARGINS[parameters.method]})
    return Step(
        name="crop",
        settings=parameters.model_dump(exclude=set() if parameters.min_quality else {"min_quality"}),
        expected=partial(_expected, parameters),
        work=partial(_crop, parameters),
        compose=_compose,
        made=("schema", "id", "path", "mask", "source", "bbox", "value", "kind", "nucleus", "quality", "crop", "cells"),
        reserved=("masks",),
        check=_check,
    )


def _check(record: Record) -> None:
    if record["schema"] == CELL:
        raise InputError(f"{record['id']}: is a cropped cell already; give the masks of `wbctool segment`")
    if record["schema"] == IMAGE:
        raise InputError(f"{record['id']}: has no mask; run `wbctool segment IN -o masks/` and give masks/")


def _chosen(parameters: CropParameters, record: Record) -> list[dict[str, Any]]:
    return choose_cells(record, parameters.kind, parameters.which, parameters.edge, parameters.min_quality)


def _expected(parameters: CropParameters, record: Record) -> set[str]:
    if record["schema"] != MASK:
        raise ImageError(f"{record['id']}: is not a mask record; run `wbctool segment` on it first")
    return {cell_id(record["id"], cell["value"]) for cell in _chosen(parameters, record)} or {record["id"]}


def _compose(record: Record, made: Record) -> Record:
    if made["schema"] == MASK:  # no cell was found: the field's own record, without cells
        return {**record, **made}
    kept = {key: value for key, value in record.items() if key not in _OF_THE_FIELD}
    return {**kept, **made}


def _crop(parameters: CropParameters, record: Record, folder: Path, name: str) -> list[Record]:
    recorded = parameters.model_dump(include={"method", "margin", "size", "denoise"}, exclude_none=True)
    cells = _chosen(parameters, record)
    if not cells:
        return [{"schema": MASK, "cells": [], "crop": recorded}]
    image = read_image(record["path"])
    labels = read_labels(record["mask"], (image.shape[1], image.shape[0]))
    records = []
    for cell in cells:
        window = _window(parameters, record, cell, labels)
        path = folder / f"{name}_{cell['value']}.png"
        mask_path = folder / "masks" / f"{name}_{cell['value']}.png"
        write_png(mask_path, cut(labels, window, parameters.size, labels=True))
        crop = cut(image, window, parameters.size)
        write_png(path, non_local_means(crop) if parameters.denoise else crop)
        cell_record = {
            "schema": CELL,
            "id": cell_id(record["id"], cell["value"]),
            "path": str(path),
            "mask": str(mask_path),
            "source": record["path"],
            "bbox": list(window),
            "value": cell["value"],
            "kind": cell["kind"],
        }
        optional = {key: cell[key] for key in ("nucleus", "quality") if cell.get(key) is not None}
        records.append({**cell_record, **optional, "crop": recorded})
    return records


def _window(parameters: CropParameters, record: Record, cell: Mapping[str, Any], labels: np.ndarray) -> Window:
    """The window by which a cell is cropped."""
    margin = parameters.margin or 0.0
    window = box_window(cell["bbox"], margin)
    if not _meets_image(window, labels.shape):
        raise ImageError(f"{record['id']}: the bbox of cell {cell['value']} does not lie in the image")
    if parameters.method == "box":
        return window
    nucleus = cell.get("nucleus") or cell
    mask = (labels == cell["value"]) | (labels == nucleus["value"])
    if not mask.any():
        raise ImageError(f"{record['mask']}: has no pixel of cell {cell['value']}; run `wbctool segment` again")
    return roi_window(mask, margin)


def _meets_image(window: Window, shape: tuple[int, ...]) -> bool:
    """Whether a window has pixels of the image, and is not wider than three of it."""
    x, y, width, height = window
    meets = x < shape[1] and y < shape[0] and x + width > 0 and y + height > 0
    return meets and 0 < width <= 3 * shape[1] + 64 and 0 < height <= 3 * shape[0] + 64


def roi_window(mask: np.ndarray, margin: float) -> Window:
    """Return the square about a cell: centre by moments, half side its farthest pixel × (1 + margin).

    Source: the attentive-CNN paper, section 2.2, whose margin is 0.3. It may reach outside the image.
    """
    rows, columns = np.nonzero(mask)
    centre_y, centre_x = rows.mean(), columns.mean()
    radius = np.hypot(rows - centre_y, columns - centre_x).max() + 0.5
    half = max(1, int(np.ceil(radius * (1 + margin))))
    return round(centre_x) - half, round(centre_y) - half, 2 * half + 1, 2 * half + 1


def box_window(bbox: list[float], margin: float) -> Window:
    """Return the bounding box of a cell, widened on each side by a fraction of its size, maybe beyond the image."""
    x, y, width, height = bbox
    dx, dy = round(width * margin), round(height * margin)
    return int(x) - dx, int(y) - dy, int(width) + 2 * dx, int(height) + 2 * dy


def cut(image: np.ndarray, window: Window, size: int, labels: bool = False) -> np.ndarray:
    """Cut a window and scale it to size × size pixels.

    Images are padded by reflection and resampled by area (shrinking) or bilinearly; label images
    are padded with background and take the nearest pixel.
    """
    x, y, width, height = window
    rows, columns = image.shape[:2]
    top, left = max(0, -y), max(0, -x)
    bottom, right = max(0, y + height - rows), max(0, x + width - columns)
    if top or left or bottom or right:
        border = cv2.BORDER_CONSTANT if labels else cv2.BORDER_REFLECT_101
        image = cv2.copyMakeBorder(image, top, bottom, left, right, border, value=0)
    cropped = image[y + top : y + top + height, x + left : x + left + width]
    if labels:
        return cv2.resize(cropped, (size, size), interpolation=cv2.INTER_NEAREST)
    shrinking = width >= size and height >= size
    return cv2.resize(cropped, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
