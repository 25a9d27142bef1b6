"""Agreement of masks with experts' masks: Dice, IoU, precision and recall of each kind of object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wbctool.errors import ImageError, InputError, UsageProblem
from wbctool.imaging.files import decode_unchanged, read_labels
from wbctool.inputs.images import IMAGE_SUFFIXES
from wbctool.records import ERROR, MASK, Record
from wbctool.records.cells import central

SCHEMA = "wbctool.agreement/1"
PARTS = ("nucleus", "cell", "rbc", "platelet")
WHICH = ("all", "central")
DEFAULT_VALUES = {"nucleus": 255, "cell": 128}
POOR = 0.8
MEASURES = ("dice", "iou", "precision", "recall")


def parse_values(text: str | None) -> dict[str, int]:
    """`nucleus=255,cell=128` as grey values by part; a cell's value marks it without its nucleus.

    Raises:
        UsageProblem: another part, or no grey value.
    """
    if text is None:
        return DEFAULT_VALUES
    values: dict[str, int] = {}
    for item in text.split(","):
        part, equals, value = item.strip().partition("=")
        if (
            part not in PARTS
            or not equals
            or not (value.isascii() and value.isdigit())
            or not 0 < int(value) < 65536
            or part in values
        ):
            raise UsageProblem(f"--truth-values {text}: write it as nucleus=255,cell=128; parts are {', '.join(PARTS)}")
        values[part] = int(value)
    if len(set(values.values())) < len(values):
        raise UsageProblem(f"--truth-values {text}: two parts have the same value")
    return values


def find_truth(folder: Path) -> dict[str, Path]:
    """The images of a folder by their relative path without suffix.

    Raises:
        InputError: there is no such folder, or it holds none, or two of one name.
    """
    if not folder.is_dir():
        raise InputError(f"--truth {folder}: no such folder; give the one that holds the truth masks")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            stem = str(PurePosixPath(path.relative_to(folder).as_posix()).with_suffix(""))
            if stem in found:
                raise InputError(f"{path}: {found[stem].name} has the same name; keep one of them")
            found[stem] = path
    if not found:
        raise InputError(f"--truth {folder}: holds no images; give the one that holds the truth masks")
    return found


def truth_of(path: Path, values: dict[str, int], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Masks of the parts in a truth image: each grey value counts as the nearest one named, or 0.

    Args:
        path: a grey image.
        values: grey values by part.
        size: (width, height) it must have.

    Returns:
        By part, bool; a cell includes its nucleus.

    Raises:
        ImageError: it cannot be read, or has another size.
    """
    grey = _read_grey(path)
    if grey.shape[::-1] != size:
        shown = f"{grey.shape[1]}×{grey.shape[0]}, its image {size[0]}×{size[1]}"
        raise ImageError(f"{path}: the truth is {shown}; pair images with their own masks")
    names = [None, *values]
    levels = np.array([0, *values.values()], np.float32)
    nearest = np.abs(np.arange(int(grey.max()) + 1, dtype=np.float32)[:, None] - levels).argmin(axis=1)[grey]
    masks = {part: nearest == names.index(part) for part in values}
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
        raise ImageError(f"{path}: no grey image ({fault or 'of other numbers'}); get it again or leave its image out")
    if image.ndim == 3:
        if (image[..., :3] != image[..., :1]).any():
            raise ImageError(f"{path}: is a colour image; give grey masks, whose values --truth-values names")
        image = image[..., 0]
    return image


def found_of(record: Record, parts: Iterable[str], which: str) -> dict[str, np.ndarray]:
    """Masks of the parts that a mask record found, bool.

    Args:
        record: a mask record.
        parts: of `PARTS`.
        which: `all` objects, or of white cells the `central` one.

    Raises:
        ImageError: its mask cannot be read.
    """
    width, height = record["size"]
    labels = read_labels(record["mask"], (width, height))
    white = [cell for cell in record["cells"] if cell["kind"] == "wbc"]
    if which == "central" and white:
        white = [central(white, (width, height))]
    nuclei = [cell["nucleus"]["value"] for cell in white if cell.get("nucleus")]
    of_kind = {kind: [c["value"] for c in record["cells"] if c["kind"] == kind] for kind in ("rbc", "platelet")}
    values = {"nucleus": nuclei, "cell": [cell["value"] for cell in white] + nuclei, **of_kind}
    return {part: np.isin(labels, values[part]) for part in parts}


def scores(found: np.ndarray, truth: np.ndarray) -> tuple[float, float, float, float]:
    """Dice, IoU, precision and recall of two masks of one shape; 1 where both are empty."""
    common = int(np.count_nonzero(found & truth))
    a, b = int(np.count_nonzero(found)), int(np.count_nonzero(truth))
    if a + b == 0:
        return 1.0, 1.0, 1.0, 1.0
    return 2 * common / (a + b), common / (a + b - common), common / a if a else 0.0, common / b if b else 0.0


@dataclass
class Agreement:
    """What is gathered of one set of masks.

    Attributes:
        rows: for each image its id and, by part, its four scores.
        seconds: of each image, as its record says.
        method: of the masks.
        unpaired: images without truth.
        failed: images without a mask; they score 0.
        unused: truth masks without an image.
        seen: pixels of truth by part, a cell's without its nucleus.
        lacking: parts and grey values that no truth mask has.
    """

    rows: list[tuple[str, dict[str, tuple[float, ...]]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    method: str | None = None
    unpaired: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unused: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    lacking: list[str] = field(default_factory=list)

    def as_json(self, parts: Iterable[str]) -> dict[str, Any]:
        """One flat object: means by part and measure, shares of poor images, seconds, and the worst images."""
        report: dict[str, Any] = {"schema": SCHEMA, "method": self.method, "n": len(self.rows)}
        report["seconds"] = float(np.mean(self.seconds)) if self.seconds else None
        report["images_without_truth"] = len(self.unpaired)
        report["truth_without_image"] = self.unused
        report["failed"] = len(self.failed)
        worst = {}
        for part in parts:
            table = np.array([row[part] for _, row in self.rows])
            for index, measure in enumerate(MEASURES):
                report[f"{part}_{measure}"] = float(table[:, index].mean())
            report[f"{part}_median_dice"] = float(np.median(table[:, 0]))
            report[f"{part}_under_{POOR}"] = float((table[:, 0] < POOR).mean())
            ranked = sorted(self.rows, key=lambda row: (row[1][part][0], row[0]))[:10]
            worst[part] = [{"id": name, "dice": row[part][0]} for name, row in ranked]
        return {**report, "worst": worst}


def measure(
    records: Iterator[Record], truth: dict[str, Path], values: dict[str, int], which: str, source: str
) -> Agreement:
    """Compare mask records with truth masks of the same relative path and stem.

    Raises:
        InputError: a record is no mask record, a mask or truth cannot be read, or nothing pairs.
        UsageProblem: no such choice of cells.
    """
    if which not in WHICH:
        raise UsageProblem(f"--which {which}: choose from {', '.join(WHICH)}")
    result = Agreement()
    used = set()
    example = ""
    for record in records:
        stem = str(PurePosixPath(record["id"]).with_suffix(""))
        example = example or stem
        if stem not in truth:
            result.unpaired.append(record["id"])
            continue
        if stem in used:
            raise InputError(f"{source}: two records pair with {truth[stem]}; give each image once")
        used.add(stem)
        if record["schema"] == ERROR:
            result.failed.append(record["id"])
            result.rows.append((record["id"], dict.fromkeys(values, (0.0, 0.0, 0.0, 0.0))))
            continue
        if record["schema"] != MASK or not record.get("mask") or not record.get("size"):
            raise InputError(f"{source}: {record['id']} has no mask; run `wbctool segment` on it first")
        width, height = record["size"]
        masks = truth_of(truth[stem], values, (width, height))
        found = found_of(record, values, which)
        for part in values:
            result.seen[part] += int(np.count_nonzero(masks[part])) - (
                int(np.count_nonzero(masks["nucleus"])) if part == "cell" and "nucleus" in masks else 0
            )
        result.rows.append((record["id"], {part: scores(found[part], masks[part]) for part in values}))
        result.method = result.method or record.get("method")
        if record.get("seconds") is not None:
            result.seconds.append(record["seconds"])
    if not result.rows:
        other = next(iter(truth))
        raise InputError(
            f"{source}: no image pairs with a truth mask (such as {example or 'none'} and {other}); "
            "their paths inside the two folders, without suffix, must be the same"
        )
    result.unused = len(truth) - len(used)
    if len(result.failed) < len(result.rows):
        result.lacking = [f"{part}={values[part]}" for part in values if not result.seen[part]]
    return result
