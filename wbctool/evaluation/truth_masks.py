"""Reading masks for their comparison: truth images, and the label images of mask records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from wbctool.errors import ImageError, InputError, UsageProblem
from wbctool.imaging.files import decode_unchanged, read_labels
from wbctool.inputs.images import IMAGE_SUFFIXES
from wbctool.records import Record
from wbctool.records.cells import central

OBJECTS = ("nucleus", "cell", "rbc", "platelet")


def parse_grey_values(text: str | None) -> dict[str, int] | None:
    """Read `nucleus=255,cell=128` as grey values by object; a cell's value marks it without its nucleus.

    Raises:
        UsageProblem: another object, no grey value, or two objects of the same value.
    """
    if text is None:
        return None
    values: dict[str, int] = {}
    for item in text.split(","):
        name, _, value = item.strip().partition("=")
        number = int(value) if value.isascii() and value.isdigit() else 0
        if name not in OBJECTS or name in values or not 0 < number < 65536:
            names = ", ".join(OBJECTS)
            raise UsageProblem(f"--truth-values {text}: write it as nucleus=255,cell=128; parts are {names}")
        values[name] = number
    if len(set(values.values())) < len(values):
        raise UsageProblem(f"--truth-values {text}: two parts have the same value")
    return values


def find_truth(folder: Path) -> dict[str, Path]:
    """Find the images of a folder by their relative path without suffix.

    Raises:
        InputError: there is no such folder, or it holds none, or two of one name.
    """
    if not folder.is_dir():
        raise InputError(f"--truth {folder}: no such folder; give the one that holds the truth masks")
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            stem = str(PurePosixPath(path.relative_to(folder).as_posix()).with_suffix(""))
            if stem in paths:
                raise InputError(f"{path}: {paths[stem].name} has the same name; keep one of them")
            paths[stem] = path
    if not paths:
        raise InputError(f"--truth {folder}: holds no images; give the one that holds the truth masks")
    return paths


def truth_masks(path: Path, values: Mapping[str, int], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Read the masks of objects in a truth image; each grey value counts as the nearest one named, or 0.

    Args:
        path: a grey image.
        values: grey values by object.
        size: (width, height) it must have.

    Returns:
        By object, shape (height, width), bool; a cell includes its nucleus.

    Raises:
        ImageError: it cannot be read, or has another size.
    """
    grey = _read_grey(path)
    if grey.shape[::-1] != size:
        sizes = f"{grey.shape[1]}×{grey.shape[0]}, its image {size[0]}×{size[1]}"
        raise ImageError(f"{path}: the truth is {sizes}; pair images with their own masks")
    levels = np.array([0, *values.values()], np.float32)
    nearest = np.abs(np.arange(int(grey.max()) + 1, dtype=np.float32)[:, None] - levels).argmin(axis=1)[grey]
    masks = {name: nearest == number for number, name in enumerate(values, 1)}
    if "cell" in masks and "nucleus" in masks:
        masks["cell"] |= masks["nucleus"]
    return masks


def _read_grey(path: Path) -> np.ndarray:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}; check the truth folder") from None
    image, fault = decode_unchanged(data)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        reason = fault or "neither 8 nor 16 bits"
        raise ImageError(f"{path}: no grey image ({reason}); get it again or leave its image out")
    if image.ndim == 3:
        if (image[..., :3] != image[..., :1]).any():
            raise ImageError(f"{path}: is a colour image; give grey masks, whose values --truth-values names")
        image = image[..., 0]
    return image


def predicted_masks(record: Record, objects: Iterable[str], which: str) -> dict[str, np.ndarray]:
    """Read the masks of objects that a mask record describes.

    Args:
        record: a mask record.
        objects: some of `OBJECTS`.
        which: `all` white cells, or the `central` one.

    Returns:
        By object, shape (height, width), bool; a cell includes its nucleus.

    Raises:
        ImageError: its mask cannot be read.
    """
    width, height = record["size"]
    labels = read_labels(record["mask"], (width, height))
    white = [cell for cell in record["cells"] if cell["kind"] == "wbc"]
    if which == "central" and white:
        white = [central(white, (width, height))]
    nuclei = [cell["nucleus"]["value"] for cell in white if cell.get("nucleus")]
    values = {"nucleus": nuclei, "cell": [cell["value"] for cell in white] + nuclei}
    for kind in ("rbc", "platelet"):
        values[kind] = [cell["value"] for cell in record["cells"] if cell["kind"] == kind]
    return {name: np.isin(labels, values[name]) for name in objects}
