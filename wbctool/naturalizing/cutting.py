"""Cutting up one field of view: cut-outs of its cells, and the field and its background without them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wbctool.errors import ImageError
from wbctool.imaging.files import read_image, read_labels, write_png
from wbctool.imaging.jpeg import BLOCK, JpegCoding, encode_jpeg, read_coded
from wbctool.naturalizing.background import dilate, fit_illumination, illumination, remove_cells, synthesize_background
from wbctool.pipeline.names import safe_name
from wbctool.records import Record
from wbctool.records.cells import central, choose_cells
from wbctool.records.storage import write_bytes

RED_CELLS = 6  # cut out of one field at most; more add nothing new
PLATELETS = 2
_PAD = 10  # minimum distance of a cell from the border of its window, pixels
_TOUCHING, _SPOTS = 6, 16  # pixels from the subject within which a cell touches it; contact pixels that are kept
_SOFT = 2.5  # width of a cut-out's soft edge, pixels
# values of a subject's own label image
CELL, NUCLEUS, OTHER = 1, 2, 3

Window = tuple[int, int, int, int]  # x, y, width, height


def read_field(path: str) -> tuple[np.ndarray, JpegCoding | None]:
    """Read an image as it is coded: RGB, (height, width, 3), float32; and its coding if it is a JPEG."""
    image = read_image(path)  # whose error says what is wrong with a damaged file
    coded = read_coded(path)
    if coded is None or coded[0].shape != image.shape:
        return image.astype(np.float32), None
    return coded


def write_field(path: Path, image: np.ndarray, coding: JpegCoding | None) -> Path:
    """Write an image with the coding of its source; return the path, with the suffix added."""
    path = path.with_name(path.name + (".jpg" if coding else ".png"))
    if coding:
        write_bytes(path, encode_jpeg(image, coding))
    else:
        write_png(path, _to_bytes(image))
    return path


def subject_of(record: Record) -> tuple[dict[str, Any] | None, str]:
    """Return the cell that an image shows: its only white cell, or without any the platelet nearest the centre.

    Returns None and the reason if there is none that can be cut out; without a mask, an `ImageError` is raised.
    """
    candidates = choose_cells(record, kind=None, which="all")
    if not candidates:
        return None, "neither a white cell nor a platelet"
    if candidates[0]["kind"] == "wbc" and len(candidates) > 1:
        return None, f"{len(candidates)} white cells"
    subject = central(candidates, record["size"])
    if subject.get("edge"):
        return None, "its cell is cut by the edge"
    return subject, ""


def cut_up(record: Record, folder: Path, name: str) -> list[Record]:
    """Cut up one field, by its mask record, and write its parts into the folder of the pool.

    Returns one mapping with the key `pool`: the files of the parts, relative to the folder, and what composing needs to
    know about them; or `left_out`, why the image cannot be used. If there is no mask, or the image or its mask cannot
    be read, that is an `ImageError`.
    """
    subject, reason = subject_of(record)
    if subject is None:
        return [{"pool": {"left_out": reason}}]
    field = _read(record, subject, folder, name)
    window = _window_around(field.subject)
    if window is None:
        return [{"pool": {"left_out": "its cell reaches into the image's last pixels"}}]
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(record["id"].encode(), digest_size=8).digest(), "big"))
    cells = field.labels > 0
    coefficients = fit_illumination(field.image, cells)
    background = None if coefficients is None else synthesize_background(field.image, cells, coefficients, rng)
    if coefficients is None or background is None:
        return [{"pool": {"left_out": "hardly any background is visible"}}]
    parts: dict[str, Any] = {
        "light": np.round(coefficients, 3).tolist(),
        "traits": _appearance(field, coefficients),
        "red_cells": [],
        "platelets": [],
        "subject": _write_subject(field, record, subject, window),
        "field": _write_field_without_subject(field, background),
    }
    uncut = [cell for cell in record["cells"] if not cell.get("edge") and cell.get("whole") is not False]
    for key, kind, most in (("red_cells", "rbc", RED_CELLS), ("platelets", "platelet", PLATELETS)):
        whole = [cell for cell in uncut if cell["kind"] == kind and cell is not subject]
        if len(whole) > most:
            whole = [whole[k] for k in sorted(rng.permutation(len(whole))[:most])]
        for cell in whole:
            mask = field.labels == cell["value"]
            window = _window_around(mask) if mask.any() else None
            if window is not None:
                parts[key].append(_write_cut_out(field, f"{kind}/{field.name}_{cell['value']}.png", mask, window))
    return [{"pool": parts}]


@dataclass(frozen=True)
class _Field:
    """A field that is being cut up into parts of one name; pixels of its subject and of all other cells, bool.

    The image is RGB, (height, width, 3), float32; without a coding, its file is not a JPEG.
    """

    folder: Path
    name: str
    image: np.ndarray
    coding: JpegCoding | None
    labels: np.ndarray
    subject: np.ndarray
    others: np.ndarray

    def write(self, name: str, image: np.ndarray) -> str:
        """Write an image with the coding of the field; return its path in the pool."""
        return write_field(self.folder / name, image, self.coding).relative_to(self.folder).as_posix()


def _read(record: Record, subject: dict[str, Any], folder: Path, name: str) -> _Field:
    image, coding = read_field(record["path"])
    height, width = image.shape[:2]
    labels = read_labels(record["mask"], (width, height))
    if list(record["size"]) != [width, height]:
        raise ImageError(
            f"{record['path']}: is {width}×{height}, its record says otherwise; run `wbctool segment` again"
        )
    nucleus = subject.get("nucleus")
    mask = np.isin(labels, [subject["value"], *([nucleus["value"]] if nucleus else [])])
    if not mask.any():
        raise ImageError(f"{record['mask']}: has no pixel of cell {subject['value']}; run `wbctool segment` again")
    return _Field(folder, name, image, coding, labels, mask, (labels > 0) & ~mask)


def _window_around(mask: np.ndarray) -> Window | None:
    """Return the window around a cell, on the grid of JPEG's blocks; None if the image has no room for it."""
    height, width = (side // BLOCK * BLOCK for side in mask.shape)
    x, y, cell_width, cell_height = cv2.boundingRect(mask.astype(np.uint8))
    left, top = max(0, (x - _PAD) // BLOCK * BLOCK), max(0, (y - _PAD) // BLOCK * BLOCK)
    right = min(width, -(-(x + cell_width + _PAD) // BLOCK) * BLOCK)
    bottom = min(height, -(-(y + cell_height + _PAD) // BLOCK) * BLOCK)
    if right < x + cell_width or bottom < y + cell_height:
        return None
    return left, top, right - left, bottom - top


def _crop(array: np.ndarray, window: Window) -> np.ndarray:
    x, y, width, height = window
    return array[y : y + height, x : x + width]


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _write_cut_out(field: _Field, name: str, mask: np.ndarray, window: Window) -> dict[str, Any]:
    """Write a window of the field as RGBA, opaque where the cell is, and less and less within some pixels around it."""
    distance = cv2.distanceTransform((~_crop(mask, window)).astype(np.uint8), cv2.DIST_L2, 5)
    alpha = _to_bytes(255 * np.clip(1 - distance / (_SOFT + 1), 0, 1))
    write_png(field.folder / name, np.dstack([_to_bytes(_crop(field.image, window)), alpha]))
    return {"file": name, "window": list(window)}


def _write_subject(field: _Field, record: Record, subject: dict[str, Any], window: Window) -> dict[str, Any]:
    """Write the subject: its cut-out, its label image, and its window of the field as coded."""
    name = f"{subject['kind']}/{safe_name(record.get('label') or 'without a label')}/{field.name}"
    values = np.zeros(field.labels.shape, np.uint8)
    values[field.others] = OTHER
    values[field.subject] = CELL
    if subject.get("nucleus"):
        values[field.labels == subject["nucleus"]["value"]] = NUCLEUS
    write_png(field.folder / "masks" / f"{name}.png", _crop(values, window))
    x, y, width, height = subject["bbox"]
    middle = record["size"][0] / 2, record["size"][1] / 2
    return {
        **_write_cut_out(field, f"{name}.png", field.subject, window),
        "mask": f"masks/{name}.png",
        "exact": field.write(f"windows/{name}", _crop(field.image, window)),
        "kind": subject["kind"],
        "area": int(field.subject.sum()),
        "nucleus": int((values == NUCLEUS).sum()),
        "central": bool(x <= middle[0] <= x + width and y <= middle[1] <= y + height),
    }


def _write_field_without_subject(field: _Field, background: np.ndarray) -> dict[str, Any]:
    """Write the field without its subject, and its background without any cell."""
    mask = f"masks/field/{field.name}.png"
    write_png(field.folder / mask, np.where(field.subject, 0, field.labels).astype(field.labels.dtype))
    rows, columns = np.nonzero(field.subject)
    contact = dilate(field.subject, _TOUCHING) & field.others
    touching = {}  # by the value of the cell, how many pixels touch the subject, and x and y of some of them
    for value in np.unique(field.labels[contact]).tolist():
        y, x = np.nonzero(contact & (field.labels == value))
        touching[str(value)] = len(y), np.stack([x, y], 1)[:: -(-len(y) // _SPOTS)].tolist()
    without = remove_cells(field.image, background, field.subject, field.others)
    return {
        "file": field.write(f"field/{field.name}", without),
        "background": field.write(f"background/{field.name}", background),
        "mask": mask,
        "centre": [round(float(columns.mean()), 1), round(float(rows.mean()), 1)],
        "touching": touching,
    }


def _appearance(field: _Field, coefficients: np.ndarray) -> dict[str, Any]:
    """Measure what two fields must have in common so that parts of one can be put into the other."""
    image, others = field.image, field.others
    height, width = field.labels.shape
    clean = ~dilate(field.labels > 0, 4)
    grain = cv2.Laplacian(np.ascontiguousarray(image[..., 1]), cv2.CV_32F)[clean]
    outlines = dilate(others, 3) & ~cv2.erode(others.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    fine = cv2.Laplacian(cv2.GaussianBlur(image[..., 1], (0, 0), 1.0), cv2.CV_32F)
    smooth = illumination(coefficients, (width, height), (0, 0, width, height))
    density = -np.log(np.clip(image, 1, 255) / np.clip(smooth, 1, None))[others]
    stain = np.median(density, 0) if len(density) > 200 else np.zeros(3)
    return {
        "light": [round(float(v), 1) for v in coefficients[0]],
        "stain": [round(float(v), 4) for v in stain],
        "noise": round(float(grain.std()), 3),
        "steps": round(float(np.mean(field.coding.tables[0][:10])), 1) if field.coding else 1.0,
        "focus": round(float(fine[outlines].std()), 3) if outlines.sum() > 200 else 0.0,
        "cover": round(float(others.mean()), 4),
    }
