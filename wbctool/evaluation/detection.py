"""Agreement of cells with experts' boxes: recall, precision, F1 and average precision of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os.path import splitext
from typing import Any

import numpy as np

from wbctool.console import note
from wbctool.errors import InputError
from wbctool.evaluation.document import Block, Result, Section, Table
from wbctool.evaluation.sources import reading
from wbctool.inputs.boxes import Box, BoxFiles
from wbctool.records import ERROR, KINDS, MASK, Record
from wbctool.records.selection import Selection

SCHEMA = "wbctool.detection/1"
IOU = 0.5  # from which a cell and a box are the same
_RECALLS = np.linspace(0, 1, 101)  # at which COCO takes the precision
_NAMES = {"wbc": "white cells", "rbc": "red cells", "platelet": "platelets"}


@dataclass
class _Counts:
    """Cells of one kind over all images."""

    boxes: int = 0
    cells: int = 0
    matched: int = 0
    scores: list[float] = field(default_factory=list)  # quality of each cell; empty where a cell has none
    hits: list[bool] = field(default_factory=list)  # whether it matches a box

    def figures(self, kind: str) -> dict[str, Any]:
        """Counts and measures; None for those that cannot be computed."""
        if not self.boxes:  # the experts did not draw this kind
            recall = precision = f1 = ap = None
        else:
            recall = self.matched / self.boxes
            precision = self.matched / self.cells if self.cells else None
            f1 = 2 * self.matched / (self.boxes + self.cells)
            scored = len(self.scores) == self.cells
            ap = average_precision(self.scores, self.hits, self.boxes) if scored else None
        values = (self.boxes, self.cells, recall, precision, f1, ap)
        names = ("boxes", "cells", "recall", "precision", "f1", "ap")
        return {f"{kind}_{name}": value for name, value in zip(names, values, strict=True)}


def evaluate_boxes(
    inputs: Sequence[str], truth: BoxFiles, selection: Selection | None = None, quiet: bool = True
) -> Result:
    """Compare the cells of mask records with boxes of the same relative path and stem.

    A cell and a box of its kind match at an IoU of at least `IOU`; each is in one pair, the best pairs first.

    Args:
        inputs: folders or record files of masks, or `-` for stdin.
        truth: boxes.
        selection: of labels and groups; by default those of the records.
        quiet: no notes on stderr.

    Returns:
        A report for each input.

    Raises:
        InputError: a record is no mask record, a file of boxes cannot be read, or nothing pairs.
    """
    reports = []
    for source in inputs:
        with reading([source], selection or Selection()) as (records, _):
            reports.append(_report(records, truth, source))
        if reports[-1]["images_without_truth"] and not quiet:
            note(f"{source}: {reports[-1]['images_without_truth']:,} images have no boxes and were left out")
    return Result(reports, _document(reports))


def match(truth: Sequence[Box], cells: Sequence[Box]) -> list[bool]:
    """Return of each cell whether it is in a pair with a box of its kind."""
    pairs = []
    for i, box in enumerate(truth):
        for j, cell in enumerate(cells):
            if box.kind == cell.kind and (iou := box.overlap(cell)) >= IOU:
                pairs.append((-iou, i, j))
    used: set[int] = set()
    hits = [False] * len(cells)
    for _, i, j in sorted(pairs):
        if i not in used and not hits[j]:
            used.add(i)
            hits[j] = True
    return hits


def average_precision(scores: Sequence[float], hits: Sequence[bool], boxes: int) -> float:
    """Return the mean, over 101 recalls, of the highest precision at that recall or above, as COCO does."""
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    correct = np.cumsum(np.asarray(hits, bool)[order])
    precision = correct / np.arange(1, len(correct) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    positions = np.searchsorted(correct / boxes, _RECALLS, side="left")
    return float(np.where(positions < len(best), np.append(best, 0.0)[np.minimum(positions, len(best))], 0.0).mean())


def _report(records: Iterator[Record], truth: BoxFiles, source: str) -> dict[str, Any]:
    counts = {kind: _Counts() for kind in KINDS}
    stems, used, unpaired = set(truth.stems()), set(), 0
    example = ""
    for record in records:
        stem = splitext(record["id"])[0]
        example = example or stem
        if stem not in stems:
            unpaired += 1
            continue
        if stem in used:
            raise InputError(f"{source}: two records pair with {stem}; give each image once")
        used.add(stem)
        if record["schema"] not in (MASK, ERROR) or (record["schema"] == MASK and not record.get("size")):
            raise InputError(f"{source}: {record['id']} has no cells; run `wbctool segment` on it first")
        _count(counts, truth, stem, record)
    if not used:
        raise InputError(
            f"{source}: no image pairs with boxes (such as {example or 'none'} and {next(iter(truth.stems()), 'none')})"
            "; their paths inside the two folders, without suffix, must be the same"
        )
    figures: dict[str, Any] = {}
    for kind in KINDS:
        figures.update(counts[kind].figures(kind))
    return {
        "source": source,
        "schema": SCHEMA,
        "format": truth.form,
        "iou": IOU,
        "n": len(used),
        "images_without_truth": unpaired,
        "truth_without_image": len(stems) - len(used),
        **figures,
    }


def _count(counts: dict[str, _Counts], truth: BoxFiles, stem: str, record: Record) -> None:
    """Add an image; one that failed has no cells."""
    entries = record.get("cells", [])
    boxes = truth.of(stem, record["size"]) if record.get("size") else truth.of(stem, (1, 1))
    cells = [
        Box(c["kind"], c["bbox"][0], c["bbox"][1], c["bbox"][0] + c["bbox"][2], c["bbox"][1] + c["bbox"][3])
        for c in entries
    ]
    for box in boxes:
        counts[box.kind].boxes += 1
    for cell, entry, hit in zip(cells, entries, match(boxes, cells), strict=True):
        kind = counts[cell.kind]
        kind.cells += 1
        kind.matched += hit
        if entry.get("quality") is not None:
            kind.scores.append(entry["quality"])
            kind.hits.append(hit)


def _document(reports: Sequence[dict[str, Any]]) -> Section:
    headers = ("masks", "images", "boxes", "cells", "recall", "precision", "F1", "AP")
    blocks: list[Block] = []
    for kind, name in _NAMES.items():
        rows = []
        for report in reports:
            measures = [report[f"{kind}_{measure}"] for measure in ("recall", "precision", "f1", "ap")]
            figures = ["–" if value is None else f"{value:.3f}" for value in measures]
            counts = [f"{report[key]:,}" for key in ("n", f"{kind}_boxes", f"{kind}_cells")]
            rows.append([report["source"], *counts, *figures])
        blocks.append(Section(f"{name}: boxes at IoU {IOU}", [Table(headers, rows, ruled=True)]))
    return Section("Cells against boxes", blocks)
