"""From prediction records to the arrays that figures are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wbctool.errors import InputError
from wbctool.records import ERROR, PREDICTION, SPLITS, Record


@dataclass
class Predictions:
    """Predictions with known labels.

    Attributes:
        classes: class names, in alphabetical order.
        truth, predicted: class indices, shape (n,).
        probabilities: shape (n, classes).
        split: the split they are of, or `all`.
        notes: what was left out, in words.
    """

    classes: list[str]
    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    split: str
    notes: list[str]


def collect(records: Iterable[Record], split: str | None, where: str) -> Predictions:
    """Choose the predictions that are evaluated.

    Args:
        records: prediction and error records.
        split: `train`, `val`, `test` or `all`; None takes test where records carry splits, else all.
        where: the input's name, for errors.

    Raises:
        InputError: there is nothing to evaluate, or a record is no prediction.
    """
    kept: list[Record] = []
    left_out: Counter[str] = Counter()
    for record in records:
        if record["schema"] == ERROR:
            left_out["error records"] += 1
        elif record["schema"] != PREDICTION:
            raise InputError(
                f"{where}: {record['id']} is a {record['schema']} record; give what `wbctool predict` prints"
            )
        elif record.get("label") is None:
            left_out["predictions without a label"] += 1
        else:
            kept.append(record)
    if not kept:
        reason = ", ".join(f"{count:,} {what}" for what, count in left_out.items())
        raise InputError(f"{where}: no labelled predictions to evaluate" + (f" ({reason})" if reason else ""))
    chosen, kept = _of_split(kept, split, where)
    classes = sorted({name for record in kept for name in record["probabilities"]})
    index = {name: number for number, name in enumerate(classes)}
    unknown = Counter(record["label"] for record in kept if record["label"] not in index)
    if unknown:
        named = ", ".join(f"{name} ({count:,})" for name, count in sorted(unknown.items()))
        left_out[f"images of classes the model does not know: {named}"] = sum(unknown.values())
        kept = [record for record in kept if record["label"] in index]
        if not kept:
            raise InputError(f"{where}: the model knows none of the labels: {named}; rename with --map old=new")
    bad = next((r["id"] for r in kept if r["predicted"] not in index), None)
    if bad:
        raise InputError(f"{where}: {bad}: the predicted class has no probability; predict again")
    probabilities = np.zeros((len(kept), len(classes)))
    for row, record in enumerate(kept):
        for name, value in record["probabilities"].items():
            probabilities[row, index[name]] = value
    return Predictions(
        classes=classes,
        truth=np.array([index[record["label"]] for record in kept]),
        predicted=np.array([index[record["predicted"]] for record in kept]),
        probabilities=probabilities,
        split=chosen,
        notes=[f"{count:,} {what}" for what, count in left_out.items()],
    )


def _of_split(records: list[Record], split: str | None, where: str) -> tuple[str, list[Record]]:
    present = {record.get("split") for record in records} - {None}
    if split == "all" or (split is None and not present):
        return "all", records
    wanted = split or "test"
    kept = [record for record in records if record.get("split") == wanted]
    if not kept:
        found = ", ".join(name for name in SPLITS if name in present) or "none"
        raise InputError(f"{where}: no {wanted} predictions (splits found: {found}); give --split val or --split all")
    return wanted, kept
