"""One field taken apart: its cell, red cells and platelets as cut-outs, and what is left without them."""

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
from wbctool.naturalizing.background import CleanSlide, emptied, fit_light, grown, light
from wbctool.naturalizing.subjects import subject_of
from wbctool.pipeline.names import safe_name
from wbctool.records import Record
from wbctool.records.storage import write_bytes

RED_CELLS = 6  # cut out of one field at most; more add nothing new
PLATELETS = 2
_PAD = 10  # pixels about a cell that its window holds at least
_BESIDE, _SPOTS = 6, 16  # pixels from the subject at which a cell leans on it; and how many of them are noted
_SOFT = 2.5  # width of a cut-out's soft edge, pixels
# values of a subject's own label image
CELL, NUCLEUS, OTHER = 1, 2, 3


def read_field(path: str) -> tuple[np.ndarray, JpegCoding | None]:
    """An image as its file has it: RGB, (height, width, 3), float32, and its coding where it is a JPEG."""
    shown = read_image(path)  # which names what is wrong with a damaged file
    coded = read_coded(path)
    if coded is None or coded[0].shape != shown.shape:
        return shown.astype(np.float32), None
    return coded


def write_field(path: Path, image: np.ndarray, coding: JpegCoding | None) -> Path:
    """Write an image as its source was coded; the path, with the suffix that it got."""
    path = path.with_name(path.name + (".jpg" if coding else ".png"))
    if coding:
        write_bytes(path, encode_jpeg(image, coding))
    else:
        write_png(path, np.clip(np.rint(image), 0, 255).astype(np.uint8))
    return path


def take_apart(record: Record, folder: Path, name: str) -> list[Record]:
    """The work of the pool: cut one field up and write its parts.

    Args:
        record: a mask record.
        folder: of the pool.
        name: of the parts, with folders.

    Returns:
        One mapping with the key `pool`: the parts' files, relative to the folder, and what composing needs to
        know of them; or `left_out`, why the image does not serve.

    Raises:
        ImageError: the image or its mask cannot be read, or there is no mask.
    """
    subject, why = subject_of(record)
    if subject is None:
        return [{"pool": {"left_out": why}}]
    image, coding = read_field(record["path"])
    height, width = image.shape[:2]
    labels = read_labels(record["mask"], (width, height))
    if list(record["size"]) != [width, height]:
        raise ImageError(
            f"{record['path']}: is {width}×{height}, its record says otherwise; run `wbctool segment` again"
        )
    own = np.isin(labels, [subject["value"], *([subject["nucleus"]["value"]] if subject.get("nucleus") else [])])
    if not own.any():
        raise ImageError(f"{record['mask']}: has no pixel of cell {subject['value']}; run `wbctool segment` again")
    window = _window(own)
    if window is None:
        return [{"pool": {"left_out": "its cell reaches into the image's last pixels"}}]
    light_fit = fit_light(image, labels > 0)
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(record["id"].encode(), digest_size=8).digest(), "big"))
    if light_fit is None or not (slide := CleanSlide(image, labels > 0, light_fit, rng)).enough:
        return [{"pool": {"left_out": "hardly any empty slide is seen"}}]
    others = (labels > 0) & ~own
    made: dict[str, Any] = {
        "light": np.round(light_fit, 3).tolist(),
        "traits": _traits(image, labels, others, light_fit, coding),
        "red_cells": [],
        "platelets": [],
    }
    taken = _Taken(folder, name, image, coding, labels, own, others)
    made["subject"] = _subject(taken, record, subject, window)
    made["field"] = _field(taken, slide)
    for key, kind, most in (("red_cells", "rbc", RED_CELLS), ("platelets", "platelet", PLATELETS)):
        whole = [
            cell
            for cell in record["cells"]
            if cell["kind"] == kind and not cell.get("edge") and cell.get("whole") is not False and cell is not subject
        ]
        for cell in whole if len(whole) <= most else [whole[k] for k in sorted(rng.permutation(len(whole))[:most])]:
            mask = labels == cell["value"]
            if (around := _window(mask) if mask.any() else None) is not None:
                made[key].append(_cut_out(folder, f"{kind}/{name}_{cell['value']}.png", image, mask, around))
    return [{"pool": made}]


def _window(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The window about a cell, on the grid of JPEG's blocks: x, y, width, height; None where it does not fit."""
    height, width = (side // BLOCK * BLOCK for side in mask.shape)
    x, y, wide, high = cv2.boundingRect(mask.astype(np.uint8))
    left, top = max(0, (x - _PAD) // BLOCK * BLOCK), max(0, (y - _PAD) // BLOCK * BLOCK)
    right = min(width, -(-(x + wide + _PAD) // BLOCK) * BLOCK)
    bottom = min(height, -(-(y + high + _PAD) // BLOCK) * BLOCK)
    if right < x + wide or bottom < y + high:
        return None
    return left, top, right - left, bottom - top


def _part(array: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    x, y, width, height = window
    return array[y : y + height, x : x + width]


def soft_edge(mask: np.ndarray) -> np.ndarray:
    """Alpha of a cut-out: 255 in the mask, falling to 0 within some pixels about it; uint8, of its shape."""
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return np.rint(255 * np.clip(1 - away / (_SOFT + 1), 0, 1)).astype(np.uint8)


def _cut_out(
    folder: Path, name: str, image: np.ndarray, mask: np.ndarray, window: tuple[int, int, int, int]
) -> dict[str, Any]:
    """Write a cell as RGBA on a window of the block grid."""
    colours = np.clip(np.rint(_part(image, window)), 0, 255).astype(np.uint8)
    write_png(folder / name, np.dstack([colours, soft_edge(_part(mask, window))]))
    return {"file": name, "window": list(window)}


@dataclass(frozen=True)
class _Taken:
    """A field that is being taken apart: where its parts go, its pixels, its subject and its other cells."""

    folder: Path
    name: str
    image: np.ndarray
    coding: JpegCoding | None
    labels: np.ndarray
    own: np.ndarray
    others: np.ndarray

    def write(self, place: str, image: np.ndarray) -> str:
        """Write an image as the field was coded; its name in the pool."""
        return write_field(self.folder / place, image, self.coding).relative_to(self.folder).as_posix()


def _subject(
    taken: _Taken, record: Record, subject: dict[str, Any], window: tuple[int, int, int, int]
) -> dict[str, Any]:
    place = f"{subject['kind']}/{safe_name(record.get('label') or 'without a label')}/{taken.name}"
    values = np.zeros(taken.labels.shape, np.uint8)
    values[taken.others] = OTHER
    values[taken.own] = CELL
    if subject.get("nucleus"):
        values[taken.labels == subject["nucleus"]["value"]] = NUCLEUS
    write_png(taken.folder / "masks" / f"{place}.png", _part(values, window))
    x, y, width, height = subject["bbox"]
    middle = record["size"][0] / 2, record["size"][1] / 2
    return {
        **_cut_out(taken.folder, f"{place}.png", taken.image, taken.own, window),
        "mask": f"masks/{place}.png",
        "exact": taken.write(f"windows/{place}", _part(taken.image, window)),
        "kind": subject["kind"],
        "area": int(taken.own.sum()),
        "nucleus": int((values == NUCLEUS).sum()),
        "central": bool(x <= middle[0] <= x + width and y <= middle[1] <= y + height),
    }


def _field(taken: _Taken, slide: CleanSlide) -> dict[str, Any]:
    """Write the field without its subject, and without any cell."""
    labels, own = taken.labels, taken.own
    mask = f"masks/field/{taken.name}.png"
    write_png(taken.folder / mask, np.where(own, 0, labels).astype(labels.dtype))
    rows, columns = np.nonzero(own)
    beside = grown(own, _BESIDE) & taken.others
    return {
        "file": taken.write(f"field/{taken.name}", emptied(taken.image, slide.everywhere, own, taken.others)),
        "background": taken.write(f"background/{taken.name}", slide.everywhere),
        "mask": mask,
        "centre": [round(float(columns.mean()), 1), round(float(rows.mean()), 1)],
        "touching": {str(value): _spots(beside & (labels == value)) for value in np.unique(labels[beside]).tolist()},
    }


def _spots(mask: np.ndarray) -> tuple[int, list[list[int]]]:
    """How many pixels a mask has, and x and y of some of them."""
    rows, columns = np.nonzero(mask)
    return len(rows), np.stack([columns, rows], 1)[:: -(-len(rows) // _SPOTS)].tolist()


def _traits(
    image: np.ndarray, labels: np.ndarray, others: np.ndarray, light_fit: np.ndarray, coding: JpegCoding | None
) -> dict[str, Any]:
    """What a field must share with another for their parts to go together."""
    height, width = labels.shape
    clean = ~grown(labels > 0, 4)
    grain = cv2.Laplacian(np.ascontiguousarray(image[..., 1]), cv2.CV_32F)[clean]
    edges = grown(others, 3) & ~cv2.erode(others.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    fine = cv2.Laplacian(cv2.GaussianBlur(image[..., 1], (0, 0), 1.0), cv2.CV_32F)
    smooth = light(light_fit, (width, height), (0, 0, width, height))
    density = -np.log(np.clip(image, 1, 255) / np.clip(smooth, 1, None))[others]
    stain = np.median(density, 0) if len(density) > 200 else np.zeros(3)
    return {
        "light": [round(float(v), 1) for v in light_fit[0]],
        "stain": [round(float(v), 4) for v in stain],
        "noise": round(float(grain.std()), 3),
        "steps": round(float(np.mean(coding.tables[0][:10])), 1) if coding else 1.0,
        "focus": round(float(fine[edges].std()), 3) if edges.sum() > 200 else 0.0,
        "cover": round(float(others.mean()), 4),
    }
