"""Agreement of masks with experts' masks: Dice, IoU, precision and recall of each kind of object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import splitext
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wbctool.console import note
from wbctool.errors import ImageError, InputError, UsageProblem, check_choice
from wbctool.evaluation.detection import evaluate_boxes
from wbctool.evaluation.document import Block, Result, Section, Table
from wbctool.evaluation.sources import reading
from wbctool.imaging.files import decode_unchanged, read_labels
from wbctool.inputs.boxes import find_boxes
from wbctool.inputs.images import IMAGE_SUFFIXES
from wbctool.records import ERROR, MASK, Record
from wbctool.records.cells import central
from wbctool.records.selection import Selection

SCHEMA = "wbctool.agreement/1"
OBJECTS = ("nucleus", "cell", "rbc", "platelet")
DEFAULT_VALUES = {"nucleus": 255, "cell": 128}
POOR = 0.8
MEASURES = ("dice", "iou", "precision", "recall")
_WORST, _WORST_SHOWN = 10, 5


def evaluate_masks(
    inputs: Sequence[str],
    truth: Path,
    which: str = "all",
    grey_values: Mapping[str, int] | None = None,
    selection: Selection | None = None,
    quiet: bool = True,
    kinds: Mapping[str, str] | None = None,
) -> Result:
    """Compare masks with truth masks, or with boxes, of the same relative path and stem.

    Args:
        inputs: folders or record files of masks, or `-` for stdin.
        truth: folder of grey images; or a COCO file, or a folder of Pascal VOC or YOLO files, whose boxes are compared
            with those of the cells (`detection.evaluate_boxes`).
        which: `all` white cells, or the `central` one.
        grey_values: of `nucleus`, `cell`, `rbc` and `platelet` in the truth; by default `DEFAULT_VALUES`.
        selection: of labels and groups; by default those of the records.
        quiet: no notes on stderr.
        kinds: of boxes: kind by class name, where the name does not say it.

    Returns:
        A report for each input.

    Raises:
        InputError: a record is no mask record, a mask or truth cannot be read, nothing pairs, or, where no grey values
            were given, no truth mask has one of the default ones.
        UsageProblem: no such choice of cells.
    """
    check_choice("--which", which, ("all", "central"))
    if boxes := find_boxes(truth, kinds):
        if grey_values or which != "all":
            raise UsageProblem("--which and --truth-values go with truth masks, not with boxes")
        return evaluate_boxes(inputs, boxes, selection, quiet)
    if kinds:
        raise UsageProblem(f"--kinds goes with boxes; {truth} has none (.xml, .txt or .json)")
    values = dict(grey_values or DEFAULT_VALUES)
    paths = find_truth(truth)
    reports = []
    for source in inputs:
        with reading([source], selection or Selection()) as (records, _):
            compared = _compare(records, paths, values, which, source)
        absent = [f"{name}={value}" for name, value in values.items() if not compared.truth_pixels[name]]
        if absent and compared.failed < len(compared.scores):
            message = f"{truth}: no truth mask has {', '.join(absent)}"
            if grey_values is None:
                raise InputError(f"{message}; name the grey values that it has with --truth-values")
            note(message)
        reports.append(_report(compared, source, len(paths)))
        for key, text in (
            ("images_without_truth", "images have no truth and were left out"),
            ("truth_without_image", "truth masks have no image"),
            ("failed", "images have no mask and score 0"),
        ):
            if reports[-1][key] and not quiet:
                note(f"{source}: {reports[-1][key]:,} {text}")
    return Result(reports, _document(reports, list(values)))


def overlap(predicted: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    """Return the `MEASURES` of two masks of one shape; 1 where both are empty."""
    common = int(np.count_nonzero(predicted & truth))
    a, b = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    if a + b == 0:
        return 1.0, 1.0, 1.0, 1.0
    return 2 * common / (a + b), common / (a + b - common), common / a if a else 0.0, common / b if b else 0.0


@dataclass
class _Compared:
    """One set of masks: `MEASURES` by image id and object, and what reports say beside them."""

    scores: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    method: str | None = None
    unpaired: int = 0
    failed: int = 0
    truth_pixels: Counter[str] = field(default_factory=Counter)  # by object, a cell's without its nucleus


def _compare(
    records: Iterator[Record], truth: Mapping[str, Path], values: Mapping[str, int], which: str, source: str
) -> _Compared:
    compared = _Compared()
    used: set[str] = set()
    example = ""
    for record in records:
        stem = splitext(record["id"])[0]
        example = example or stem
        if stem not in truth:
            compared.unpaired += 1
            continue
        if stem in used:
            raise InputError(f"{source}: two records pair with {truth[stem]}; give each image once")
        used.add(stem)
        if record["schema"] == ERROR:
            compared.failed += 1
            compared.scores[record["id"]] = dict.fromkeys(values, (0.0, 0.0, 0.0, 0.0))
            continue
        if record["schema"] != MASK or not record.get("mask") or not record.get("size"):
            raise InputError(f"{source}: {record['id']} has no mask; run `wbctool segment` on it first")
        expert = truth_masks(truth[stem], values, record["size"])
        predicted = predicted_masks(record, values, which)
        compared.scores[record["id"]] = {name: overlap(predicted[name], mask) for name, mask in expert.items()}
        for name, mask in expert.items():
            outside = mask & ~expert["nucleus"] if name == "cell" and "nucleus" in expert else mask
            compared.truth_pixels[name] += int(np.count_nonzero(outside))
        compared.method = compared.method or record.get("method")
        if record.get("seconds") is not None:
            compared.seconds.append(record["seconds"])
    if not used:
        raise InputError(
            f"{source}: no image pairs with a truth mask (such as {example or 'none'} and {next(iter(truth))}); "
            "their paths inside the two folders, without suffix, must be the same"
        )
    return compared


def _report(compared: _Compared, source: str, truth_count: int) -> dict[str, Any]:
    report: dict[str, Any] = {
        "source": source,
        "schema": SCHEMA,
        "method": compared.method,
        "n": len(compared.scores),
        "seconds": float(np.mean(compared.seconds)) if compared.seconds else None,
        "images_without_truth": compared.unpaired,
        "truth_without_image": truth_count - len(compared.scores),
        "failed": compared.failed,
    }
    worst = {}
    for name in next(iter(compared.scores.values())):
        by_image = {image: scores[name] for image, scores in compared.scores.items()}
        table = np.array(list(by_image.values()))
        for index, measure in enumerate(MEASURES):
            report[f"{name}_{measure}"] = float(table[:, index].mean())
        report[f"{name}_median_dice"] = float(np.median(table[:, 0]))
        report[f"{name}_under_{POOR}"] = float((table[:, 0] < POOR).mean())
        ranked = sorted(by_image, key=lambda image: (by_image[image][0], image))[:_WORST]
        worst[name] = [{"id": image, "dice": by_image[image][0]} for image in ranked]
    return {**report, "worst": worst}


def _document(reports: list[dict[str, Any]], objects: Sequence[str]) -> Section:
    headers = ("masks", "method", "images", "Dice", "IoU", "prec.", "recall", f"< {POOR}", "s/image")
    blocks: list[Block] = []
    for name in objects:
        rows = []
        for report in reports:
            measures = [f"{report[f'{name}_{measure}']:.4f}" for measure in MEASURES]
            seconds = "–" if report["seconds"] is None else f"{report['seconds']:.4f}"
            cells = [report["source"], report["method"] or "–", f"{report['n']:,}", *measures]
            rows.append([*cells, f"{report[f'{name}_under_{POOR}']:.1%}", seconds])
        blocks.append(Section(f"{name}: mean over images", [Table(headers, rows, ruled=True)]))
    if len(reports) == 1:
        worst = {name: reports[0]["worst"][name][:_WORST_SHOWN] for name in objects}
        rows = [[image["id"], name, f"{image['dice']:.4f}"] for name in objects for image in worst[name]]
        blocks.append(Section("Worst images", [Table(("image", "object", "Dice"), rows)]))
    return Section("Masks against the truth", blocks)


def parse_grey_values(text: str | None) -> dict[str, int] | None:
    """Read `nucleus=255,cell=128` as grey values by object; a cell's value marks it without its nucleus."""
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
    """Find the images of a folder by their relative path without suffix, which no two may have in common."""
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


def truth_masks(path: Path, values: Mapping[str, int], size: Sequence[int]) -> dict[str, np.ndarray]:
    """Read the masks of objects in a grey image of a (width, height): (height, width), bool; a cell has its nucleus.

    Each grey value counts as the nearest one named, or 0.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}; check the truth folder") from None
    grey, fault = decode_unchanged(data)
    if grey is None or grey.dtype not in (np.uint8, np.uint16):
        reason = fault or "neither 8 nor 16 bits"
        raise ImageError(f"{path}: no grey image ({reason}); get it again or leave its image out")
    if grey.ndim == 3:
        if (grey[..., :3] != grey[..., :1]).any():
            raise ImageError(f"{path}: is a colour image; give grey masks, whose values --truth-values names")
        grey = grey[..., 0]
    if grey.shape[::-1] != tuple(size):
        sizes = f"{grey.shape[1]}×{grey.shape[0]}, its image {size[0]}×{size[1]}"
        raise ImageError(f"{path}: the truth is {sizes}; pair images with their own masks")
    levels = np.array([0, *values.values()], np.float32)
    nearest = np.abs(np.arange(int(grey.max()) + 1, dtype=np.float32)[:, None] - levels).argmin(axis=1)[grey]
    masks = {name: nearest == number for number, name in enumerate(values, 1)}
    if "cell" in masks and "nucleus" in masks:
        masks["cell"] |= masks["nucleus"]
    return masks


def predicted_masks(record: Record, objects: Iterable[str], which: str) -> dict[str, np.ndarray]:
    """Read the masks of objects that a mask record describes, like `truth_masks`; of `all` white cells or one."""
    labels = read_labels(record["mask"], record["size"])
    white = [cell for cell in record["cells"] if cell["kind"] == "wbc"]
    if which == "central" and white:
        white = [central(white, record["size"])]
    nuclei = [cell["nucleus"]["value"] for cell in white if cell.get("nucleus")]
    values = {"nucleus": nuclei, "cell": [cell["value"] for cell in white] + nuclei}
    for kind in ("rbc", "platelet"):
        values[kind] = [cell["value"] for cell in record["cells"] if cell["kind"] == kind]
    return {name: np.isin(labels, values[name]) for name in objects}
