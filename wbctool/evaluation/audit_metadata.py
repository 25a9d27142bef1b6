"""The audit of metadata: can the class be guessed from what is known of an image beside its pixels?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from wbctool.evaluation.predictions import Predictions
from wbctool.evaluation.report import summary_of
from wbctool.records import MODELS, Record

_DISTINCT_VALUES = 50  # of a numeric feature; with more, tenths of its range are compared
_SIGNIFICANCE, _ADVANTAGE = 0.01, 0.1  # p-value over all features, and balanced accuracy above chance, of a finding
_NO_FEATURES = {name for model in MODELS.values() for name in model.model_fields} | {
    *("schema", "run", "temperature", "enhance", "near_duplicate_of", "synthetic", "sources", "original"),
}


def check_metadata(tested: Predictions, trained: Sequence[Record], sizes: np.ndarray) -> list[dict[str, Any]]:
    """Find the features that the class can be guessed from.

    Args:
        tested: predictions with their records.
        trained: records of training images.
        sizes: width and height of the tested images, then of those of training, 0 where unknown, shape (n, 2).

    Returns:
        A check for each of these features, or one without findings.
    """
    columns = _features(tested, trained, sizes)
    indices: dict[str | None, int] = {name: index for index, name in enumerate(tested.classes)}
    labels = np.array([indices.get(record.get("label"), -1) for record in trained], np.int64)
    coded = {name: _codes(*values) for name, values in columns.items()}
    varied = {name: codes for name, codes in coded.items() if any(len(np.unique(each)) > 1 for each in codes)}
    chance = 1 / len(np.unique(tested.truth))
    checks = []
    for name, codes in varied.items():
        guess = _guess(*codes, labels, len(indices))
        score, p = _permutation_test(guess, tested, int(2 * len(varied) / _SIGNIFICANCE))
        if p * len(varied) <= _SIGNIFICANCE and score >= chance + _ADVANTAGE:
            misled = guess != tested.truth
            checks.append(
                {
                    "name": "metadata",
                    "title": f"the class can be guessed from the {name} alone",
                    "feature": name,
                    "balanced_accuracy": score,
                    "chance": chance,
                    "p": p,
                    "count": int((~misled).sum()),
                    "of": len(tested.ids),
                    "examples": [],
                    "without": summary_of(tested.subset(misled)) if misled.any() else None,
                }
            )
    title = f"features beside the pixels that tell the class ({', '.join(columns)})"
    none = {"name": "metadata", "title": title, "count": 0, "of": len(columns), "examples": [], "without": None}
    return checks or [none]


def _features(
    tested: Predictions, trained: Sequence[Record], sizes: np.ndarray
) -> dict[str, tuple[list[Any], list[Any]]]:
    """Return the values of each feature, of the tested images and of those of training."""
    count = len(tested.ids)
    if (sizes == 0).any() and (sizes > 0).any():  # an unreadable image must not be told by its size
        known_sizes, often = np.unique(sizes[sizes[:, 0] > 0], axis=0, return_counts=True)
        sizes = np.where(sizes > 0, sizes, known_sizes[often.argmax()])
    pairs = [tuple(size) for size in sizes.tolist()]
    columns: dict[str, tuple[list[Any], list[Any]]] = {
        "image size": (pairs[:count], pairs[count:]),
        "file type": ([_suffix(path) for path in tested.paths], [_suffix(record["path"]) for record in trained]),
    }
    keys = {key for record in tested.records for key, value in record.items() if isinstance(value, str | int | float)}
    for key in sorted(keys - _NO_FEATURES):
        columns[key] = ([_plain(r.get(key)) for r in tested.records], [_plain(r.get(key)) for r in trained])
    return columns


def _plain(value: Any) -> str | float | None:
    """Return a value that can be compared; None for lists and objects."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return str(value) if isinstance(value, str | int | float) else None


def _suffix(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _codes(tested: list[Any], trained: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return values as integers, equal where values are; tenths of the range of a feature with many numbers."""
    numeric = all(isinstance(value, int | float) for value in (*tested, *trained) if value is not None)
    distinct = {value for value in trained if value is not None}
    if numeric and len(distinct) > _DISTINCT_VALUES:
        edges = np.quantile(sorted(distinct), np.linspace(0, 1, 11)[1:-1])
        ours, theirs = (
            np.array([-1 if value is None else int(np.searchsorted(edges, value)) for value in values])
            for values in (tested, trained)
        )
        return ours, theirs
    codes: defaultdict[Any, int] = defaultdict(lambda: len(codes))
    return np.array([codes[value] for value in tested]), np.array([codes[value] for value in trained])


def _guess(tested: np.ndarray, trained: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the class that is most frequent among training images of the same value, relative to class sizes, (n,)."""
    table = np.zeros((int(max(tested.max(), trained.max(initial=0))) + 2, classes))
    np.add.at(table, (trained[labels >= 0], labels[labels >= 0]), 1)
    table /= np.maximum(table.sum(axis=0), 1)
    return table.argmax(axis=1)[tested]


def _permutation_test(guess: np.ndarray, tested: Predictions, times: int) -> tuple[float, float]:
    """Return the balanced accuracy of guesses, and its p-value.

    By hand, as `sklearn.model_selection.permutation_test_score` permutes single images, and here whole groups are.
    """
    groups, classes = len(tested.group_names), len(tested.classes)
    votes = [
        np.bincount(tested.groups * classes + each, minlength=groups * classes).reshape(groups, classes).argmax(axis=1)
        for each in (guess, tested.truth)
    ]

    def balanced_accuracy(guessed: np.ndarray, truth: np.ndarray) -> float:
        support = np.bincount(truth, minlength=classes)
        hits = np.bincount(truth[truth == guessed], minlength=classes)
        return float((hits[support > 0] / support[support > 0]).mean())

    rng = np.random.default_rng(0)
    reached = balanced_accuracy(*votes)
    as_good = sum(balanced_accuracy(votes[0], rng.permutation(votes[1])) >= reached - 1e-12 for _ in range(times))
    return balanced_accuracy(guess, tested.truth), (as_good + 1) / (times + 1)
