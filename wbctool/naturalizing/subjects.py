"""Choosing the images that composites are made of: those with one whole cell, which is what their label means."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wbctool.records import Record
from wbctool.records.cells import central, choose_cells

_FAR = 5.0  # robust standard deviations from the class's median beyond which a cell is an outlier
_MIN_IMAGES = 10  # of a class, for a median
_CENTRED = 0.9  # fraction of images with their subject in the centre beyond which the others are outliers
_NAMES = {"wbc": "white cell", "platelet": "platelet"}


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


def find_outliers(subjects: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Find subjects that are probably not the cell that their label means; return the reasons, by index.

    Subjects have a `label`, `kind`, `area` and `nucleus` (areas in pixels; 0 without a nucleus), and `central`, whether
    they lie in the centre of their image.
    """
    outliers: dict[int, str] = {}
    indices_of: dict[str, list[int]] = defaultdict(list)
    for index, subject in enumerate(subjects):
        indices_of[subject["label"]].append(index)
    centred = len(subjects) >= _MIN_IMAGES and np.mean([subject["central"] for subject in subjects]) > _CENTRED
    for label, indices in indices_of.items():
        usual, count = Counter(subjects[index]["kind"] for index in indices).most_common(1)[0]
        for index in indices:
            kind = subjects[index]["kind"]
            if kind != usual and count > len(indices) / 2:
                outliers[index] = f"a {_NAMES[kind]} in {label}, where most are {_NAMES[usual]}s"
            elif centred and not subjects[index]["central"]:
                outliers[index] = "its cell is not in the middle, where nearly all have theirs"
        usual_indices = [index for index in indices if index not in outliers]
        if len(usual_indices) >= _MIN_IMAGES:
            outliers |= _far_from_median(subjects, usual_indices, label)
    return outliers


def _far_from_median(subjects: Sequence[Mapping[str, Any]], indices: list[int], label: str) -> dict[int, str]:
    outliers = {}
    area, nucleus = (np.array([subjects[index][key] for index in indices]) for key in ("area", "nucleus"))
    measures = {"size of the cell": np.log(area), "relative size of the nucleus": np.log(nucleus / area + 0.01)}
    for name, values in measures.items():
        deviation = np.abs(values - np.median(values))
        limit = _FAR * (1.4826 * np.median(deviation) + 0.02)
        outliers.update({indices[k]: f"{name} is far from that of {label}" for k in np.flatnonzero(deviation > limit)})
    return outliers
