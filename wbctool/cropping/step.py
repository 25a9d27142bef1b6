"""The folder step `crop`: mask records in, one image and mask per cell out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from wbctool.cropping.windows import DEFAULT_MARGIN, DENOISE, METHODS, box_window, cut, roi_window
from wbctool.errors import ImageError, InputError, UsageProblem
from wbctool.imaging.enhancement import non_local_means
from wbctool.imaging.files import read_image, read_labels, write_png
from wbctool.pipeline.step import Step
from wbctool.records import CELL, IMAGE, MASK, Record, cell_id
from wbctool.records.cells import EDGE, KIND_CHOICES, WHICH, choose_cells

# Of a field's record these do not hold for a cell cut from it.
_OF_THE_FIELD = ("size", "seconds", "mask", "cells")
_MADE = ("schema", "id", "path", "mask", "source", "bbox", "value", "kind", "nucleus", "crop", "cells")


@dataclass(frozen=True)
class CropOptions:
    """How cells are cropped.

    Attributes:
        method: of `METHODS`.
        margin: added on each side, a share of the cell's size; None for the method's own.
        size: side of the crops, pixels.
        kind: `wbc`, `platelet`, `rbc`, `any`; None takes white cells, or platelets where there are none.
        which: `central`, `largest` or `all` of an image's cells.
        edge: `keep` or `drop` cells that the image's edge cuts.
        denoise: `nlm` for non-local means before cropping; None for none.
    """

    method: str = "roi"
    margin: float | None = None
    size: int = 224
    kind: str | None = None
    which: str = "central"
    edge: str = "keep"
    denoise: str | None = None

    @property
    def share(self) -> float:
        """The margin: the method's where none is given."""
        return DEFAULT_MARGIN[self.method] if self.margin is None else self.margin


def crop_step(options: CropOptions) -> Step:
    """The step for some options.

    Raises:
        UsageProblem: an option out of its range.
    """
    for name, value, choices in (
        ("--method", options.method, METHODS),
        ("--which", options.which, WHICH),
        ("--kind", options.kind or "any", KIND_CHOICES),
        ("--edge", options.edge, EDGE),
        ("--denoise", options.denoise or "nlm", DENOISE),
    ):
        if value not in choices:
            raise UsageProblem(f"{name} {value}: choose from {', '.join(choices)}")
    options = replace(options, margin=options.share)
    return Step(
        name="crop",
        settings=asdict(options),
        expected=partial(_expected, options),
        work=partial(_crop, options),
        compose=_compose,
        made=_MADE,
        reserved=("masks",),
        check=_check,
    )


def _check(record: Record) -> None:
    if record["schema"] == CELL:
        raise InputError(f"{record['id']}: is a cropped cell already; give the masks of `wbctool segment`")
    if record["schema"] == IMAGE:
        raise InputError(f"{record['id']}: has no mask; run `wbctool segment IN -o masks/` and give masks/")


def _expected(options: CropOptions, record: Record) -> set[str]:
    if record["schema"] != MASK:
        raise ImageError(f"{record['id']}: is no mask record; run `wbctool segment` on it first")
    chosen = choose_cells(record, options.kind, options.which, options.edge)
    return {cell_id(record["id"], cell["value"]) for cell in chosen} or {record["id"]}


def _in_image(window: tuple[int, int, int, int], shape: tuple[int, int]) -> bool:
    """Whether a window is one, meets the image, and is no wider than three of it."""
    x, y, width, height = window
    meets = x < shape[1] and y < shape[0] and x + width > 0 and y + height > 0
    return meets and 0 < width <= 3 * shape[1] + 64 and 0 < height <= 3 * shape[0] + 64


def _compose(record: Record, made: Record) -> Record:
    if made["schema"] == MASK:  # no cell was found: the field's own record, without cells
        return {**record, **made}
    kept = {key: value for key, value in record.items() if key not in _OF_THE_FIELD}
    return {**kept, **made}


def _crop(options: CropOptions, record: Record, folder: Path, name: str) -> list[Record]:
    shown: dict[str, Any] = {"method": options.method, "margin": options.margin, "size": options.size}
    if options.denoise:
        shown["denoise"] = options.denoise
    chosen = choose_cells(record, options.kind, options.which, options.edge)
    if not chosen:
        return [{"schema": MASK, "cells": [], "crop": shown}]
    image = read_image(record["path"])
    labels = read_labels(record["mask"], (image.shape[1], image.shape[0]))
    made = []
    for cell in chosen:
        nucleus = cell.get("nucleus")
        values = [cell["value"], nucleus["value"]] if nucleus else [cell["value"]]
        window = box_window(cell["bbox"], options.share)
        if not _in_image(window, image.shape[:2]):
            raise ImageError(f"{record['id']}: the bbox of cell {cell['value']} does not lie in the image")
        if options.method == "roi":
            mask = (labels == values[0]) | (labels == values[-1])
            if not mask.any():
                raise ImageError(f"{record['mask']}: has no pixel of cell {cell['value']}; run `wbctool segment` again")
            window = roi_window(mask, options.share)
        path = folder / f"{name}_{cell['value']}.png"
        mask_path = folder / "masks" / f"{name}_{cell['value']}.png"
        write_png(mask_path, cut(labels, window, options.size, labels=True))
        picture = cut(image, window, options.size)
        write_png(path, non_local_means(picture) if options.denoise else picture)
        one = {
            "schema": CELL,
            "id": cell_id(record["id"], cell["value"]),
            "path": str(path),
            "mask": str(mask_path),
            "source": record["path"],
            "bbox": list(window),
            "value": cell["value"],
            "kind": cell["kind"],
        }
        made.append({**one, **({"nucleus": nucleus} if nucleus else {}), "crop": shown})
    return made
