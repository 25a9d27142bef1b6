"""Agreement of masks with experts' masks: Dice, IoU, precision and recall of each kind of object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wbctool.console import note
from wbctool.errors import InputError, UsageProblem
from wbctool.evaluation.document import Block, Document, Section, Table
from wbctool.evaluation.sources import reading
from wbctool.evaluation.truth_masks import find_truth, predicted_masks, truth_masks
from wbctool.records import ERROR, MASK, Record
from wbctool.records.selection import Selection

SCHEMA = "wbctool.agreement/1"
WHICH = ("all", "central")
DEFAULT_VALUES = {"nucleus": 255, "cell": 128}
POOR = 0.8
MEASURES = ("dice", "iou", "precision", "recall")
_WORST, _WORST_SHOWN = 10, 5


@dataclass
class MaskAgreement:
    """The agreement of one set of masks.

    Attributes:
        source: the input.
        scores: for each image its id and, by object, its four measures.
        seconds: spent on each image, as its record says.
        method: of the masks.
        unpaired: images without truth.
        failed: images without a mask; they score 0.
        unused: number of truth masks without an image.
        truth_pixels: by object, a cell's without its nucleus.
    """

    source: str
    scores: list[tuple[str, dict[str, tuple[float, ...]]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    method: str | None = None
    unpaired: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unused: int = 0
    truth_pixels: Counter[str] = field(default_factory=Counter)

    def report(self, objects: Iterable[str]) -> dict[str, Any]:
        """Return one flat object, as `evaluate --truth --json` prints it.

        It has means by object and measure, fractions of poor images, seconds per image, and the worst images.
        """
        report: dict[str, Any] = {"source": self.source, "schema": SCHEMA, "method": self.method, "n": len(self.scores)}
        report["seconds"] = float(np.mean(self.seconds)) if self.seconds else None
        report["images_without_truth"] = len(self.unpaired)
        report["truth_without_image"] = self.unused
        report["failed"] = len(self.failed)
        worst = {}
        for name in objects:
            table = np.array([scores[name] for _, scores in self.scores])
            for index, measure in enumerate(MEASURES):
                report[f"{name}_{measure}"] = float(table[:, index].mean())
            report[f"{name}_median_dice"] = float(np.median(table[:, 0]))
            report[f"{name}_under_{POOR}"] = float((table[:, 0] < POOR).mean())
            ranked = sorted(self.scores, key=lambda row: (row[1][name][0], row[0]))[:_WORST]
            worst[name] = [{"id": image, "dice": scores[name][0]} for image, scores in ranked]
        return {**report, "worst": worst}

    def note_left_out(self) -> None:
        """Say on stderr what was not compared."""
        for count, text in (
            (len(self.unpaired), "images have no truth and were left out"),
            (self.unused, "truth masks have no image"),
            (len(self.failed), "images have no mask and score 0"),
        ):
            if count:
                note(f"{self.source}: {count:,} {text}")


@dataclass
class MaskEvaluation:
    """The agreement of one or several sets of masks with the truth.

    Attributes:
        reports: as `evaluate --truth --json` prints them, one for each input.
        objects: names of the objects that were compared.
    """

    reports: list[dict[str, Any]]
    objects: Sequence[str]

    def document(self, width: int) -> Document:
        """Lay out a table for each object, inputs side by side, and of a single input its worst images."""
        headers = ("masks", "method", "images", "Dice", "IoU", "prec.", "recall", f"< {POOR}", "s/image")
        blocks: list[Block] = [
            Section(
                f"{name}: mean over images",
                [Table(headers, [_report_row(report, name) for report in self.reports], ruled=True)],
            )
            for name in self.objects
        ]
        if len(self.reports) == 1:
            worst = self.reports[0]["worst"]
            rows = [
                [name, image["id"], f"{image['dice']:.4f}"]
                for name in self.objects
                for image in worst[name][:_WORST_SHOWN]
            ]
            blocks.append(Section("Worst images", [Table(("object", "image", "Dice"), rows, ruled=True)]))
        return Document("Masks against the truth", blocks)


def evaluate_masks(
    inputs: Sequence[str],
    truth: Path,
    which: str = "all",
    grey_values: Mapping[str, int] | None = None,
    selection: Selection | None = None,
    quiet: bool = True,
) -> MaskEvaluation:
    """Compare masks with truth masks of the same relative path and stem.

    Args:
        inputs: folders or record files of masks, or `-` for stdin.
        truth: folder of grey images.
        which: `all` white cells, or the `central` one.
        grey_values: of `nucleus`, `cell`, `rbc` and `platelet` in the truth; by default `DEFAULT_VALUES`.
        selection: of labels and groups; by default those of the records.
        quiet: no notes on stderr.

    Returns:
        A report for each input, and their layout.

    Raises:
        InputError: a record is no mask record, a mask or truth cannot be read, nothing pairs, or, where no grey values
            were given, no truth mask has one of the default ones.
        UsageProblem: no such choice of cells.
    """
    if which not in WHICH:
        raise UsageProblem(f"--which {which}: choose from {', '.join(WHICH)}")
    values = dict(grey_values or DEFAULT_VALUES)
    paths = find_truth(truth)
    reports = []
    for source in inputs:
        with reading([source], selection or Selection()) as (records, _):
            result = _compare(records, paths, values, which, source)
        absent = [f"{name}={value}" for name, value in values.items() if not result.truth_pixels[name]]
        if absent and len(result.failed) < len(result.scores):
            message = f"{truth}: no truth mask has {', '.join(absent)}"
            if grey_values is None:
                raise InputError(f"{message}; name the grey values that it has with --truth-values")
            note(message)
        if not quiet:
            result.note_left_out()
        reports.append(result.report(values))
    return MaskEvaluation(reports, list(values))


def overlap(predicted: np.ndarray, truth: np.ndarray) -> tuple[float, float, float, float]:
    """Return Dice, IoU, precision and recall of two masks of one shape; 1 where both are empty."""
    common = int(np.count_nonzero(predicted & truth))
    a, b = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    if a + b == 0:
        return 1.0, 1.0, 1.0, 1.0
    return 2 * common / (a + b), common / (a + b - common), common / a if a else 0.0, common / b if b else 0.0


def _compare(
    records: Iterator[Record], truth: Mapping[str, Path], values: Mapping[str, int], which: str, source: str
) -> MaskAgreement:
    result = MaskAgreement(source)
    used: set[str] = set()
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
            result.scores.append((record["id"], dict.fromkeys(values, (0.0, 0.0, 0.0, 0.0))))
        else:
            _add_image(result, record, truth[stem], values, which)
    if not result.scores:
        raise InputError(
            f"{source}: no image pairs with a truth mask (such as {example or 'none'} and {next(iter(truth))}); "
            "their paths inside the two folders, without suffix, must be the same"
        )
    result.unused = len(truth) - len(used)
    return result


def _add_image(result: MaskAgreement, record: Record, path: Path, values: Mapping[str, int], which: str) -> None:
    """Score the masks of one image."""
    if record["schema"] != MASK or not record.get("mask") or not record.get("size"):
        raise InputError(f"{result.source}: {record['id']} has no mask; run `wbctool segment` on it first")
    width, height = record["size"]
    truth = truth_masks(path, values, (width, height))
    predicted = predicted_masks(record, values, which)
    for name in values:
        nucleus = truth.get("nucleus") if name == "cell" else None
        inside = 0 if nucleus is None else int(np.count_nonzero(nucleus))
        result.truth_pixels[name] += int(np.count_nonzero(truth[name])) - inside
    result.scores.append((record["id"], {name: overlap(predicted[name], truth[name]) for name in values}))
    result.method = result.method or record.get("method")
    if record.get("seconds") is not None:
        result.seconds.append(record["seconds"])


def _report_row(report: dict[str, Any], name: str) -> list[str]:
    measures = [f"{report[f'{name}_{measure}']:.4f}" for measure in MEASURES]
    poor = f"{report[f'{name}_under_{POOR}']:.1%}"
    seconds = "–" if report["seconds"] is None else f"{report['seconds']:.4f}"
    return [report["source"], report["method"] or "–", f"{report['n']:,}", *measures, poor, seconds]
