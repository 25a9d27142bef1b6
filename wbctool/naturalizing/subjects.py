"""Which image serves: one subject, whole, and the only one of its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wbctool.errors import ImageError
from wbctool.records import MASK, Record
from wbctool.records.cells import central

_FAR = 5.0  # robust deviations from its class's median at which a cell is taken for a wrong one
_ENOUGH = 10  # images of a class that such a median needs
_CENTRED = 0.9  # share of images with the subject over their centre, for the others to be wrong


def subject_of(record: Record) -> tuple[dict[str, Any] | None, str]:
    """The cell that an image is about: its only white cell; without any, the platelet nearest the centre.

    Args:
        record: a mask record.

    Returns:
        The entry of its `cells`, or None and why there is none that can be cut out.

    Raises:
        ImageError: the record has no mask.
    """
    if record["schema"] != MASK or not record.get("mask") or "size" not in record:
        raise ImageError(f"{record['id']}: has no mask; run `wbctool segment` on it first")
    whites = [cell for cell in record["cells"] if cell["kind"] == "wbc"]
    if len(whites) > 1:
        return None, f"{len(whites)} white cells"
    found = whites or [cell for cell in record["cells"] if cell["kind"] == "platelet"]
    if not found:
        return None, "neither a white cell nor a platelet"
    subject = central(found, record["size"])
    if subject.get("edge"):
        return None, "its cell is cut by the edge"
    return subject, ""


def odd_ones(subjects: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """The subjects that are likely not the cell their label means.

    Args:
        subjects: each with `label`, `kind`, `area` and `nucleus` (areas in pixels, the latter 0 without one),
            and `central`, whether it lies over its image's centre.

    Returns:
        Why, by the place in the list.
    """
    odd: dict[int, str] = {}
    by_label: dict[str, list[int]] = {}
    for place, subject in enumerate(subjects):
        by_label.setdefault(subject["label"], []).append(place)
    centred = len(subjects) >= _ENOUGH and np.mean([s["central"] for s in subjects]) > _CENTRED
    for label, places in by_label.items():
        usual, count = Counter(subjects[place]["kind"] for place in places).most_common(1)[0]
        for place in places:
            if subjects[place]["kind"] != usual and count > len(places) / 2:
                odd[place] = f"a {_NAMES[subjects[place]['kind']]} in {label}, where most are {_NAMES[usual]}s"
            elif centred and not subjects[place]["central"]:
                odd[place] = "its cell is not in the middle, where nearly all have theirs"
        left = [place for place in places if place not in odd]
        if len(left) < _ENOUGH:
            continue
        for what, values in (
            ("size of the cell", [np.log(subjects[place]["area"]) for place in left]),
            ("nucleus's share", [np.log(subjects[p]["nucleus"] / subjects[p]["area"] + 0.01) for p in left]),
        ):
            rest = np.abs(np.array(values) - np.median(values))
            limit = _FAR * (1.4826 * np.median(rest) + 0.02)
            odd.update({left[k]: f"{what} is far from that of {label}" for k in np.flatnonzero(rest > limit)})
    return odd


_NAMES = {"wbc": "white cell", "platelet": "platelet"}
