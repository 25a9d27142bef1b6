"""The audit: what do tested images have in common with those that the model was trained, or chosen, on?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wbctool.evaluation.predictions import Predictions
from wbctool.evaluation.report import summary_of
from wbctool.records import MODELS, Record, group_of, image_id_of, source_of
from wbctool.records.composites import is_composite

if TYPE_CHECKING:
    from wbctool.imaging.duplicates import Duplicates

_EXAMPLES = 5
_DISTINCT_VALUES = 50  # of a numeric feature; with more, tenths of its range are compared
_SIGNIFICANCE, _ADVANTAGE = 0.01, 0.1  # p-value over all features, and balanced accuracy above chance, of a finding
_NO_FEATURES = {name for model in MODELS.values() for name in model.model_fields} | {
    *("schema", "run", "temperature", "enhance", "near_duplicate_of", "synthetic", "sources", "original"),
}


class _Taint(NamedTuple):
    """A check that found tested images, as a mask of shape (n,), and examples of what training has in common."""

    name: str
    title: str
    images: np.ndarray
    examples: list[list[str]]


def audit_of(tested: Predictions, trained: Sequence[Record], on_image: Callable[[bool], None]) -> dict[str, Any]:
    """Look for what makes metrics better than they will be on new images.

    `on_image` is called after each image that is compared. Of each check and of all together, `without` is the summary
    of the images that they do not taint.
    """
    from wbctool.imaging.duplicates import find_duplicates  # needs OpenCV, which other reports do not

    paths = [*tested.paths, *(record["path"] for record in trained)]
    duplicates = find_duplicates(paths, on_image=on_image)
    taints = [_near_duplicates(tested, trained, duplicates), _groups(tested, trained), _composites(tested, trained)]
    checks: list[dict[str, Any]] = [
        {
            "name": taint.name,
            "title": taint.title,
            "count": int(taint.images.sum()),
            "of": len(taint.images),
            "examples": taint.examples[:_EXAMPLES],
            "without": _summary_without(tested, taint.images),
        }
        for taint in taints
    ]
    tainted = np.any([taint.images for taint in taints], axis=0)
    return {
        "trained_on": len(trained),
        "of": "training" if tested.split == "val" else "training and validation",
        "not_compared": len(duplicates.failed),
        "turned": duplicates.turned,
        "checks": [*checks, _classes(tested, trained), *_metadata(tested, trained, duplicates.sizes)],
        "tainted": int(tainted.sum()),
        "without": _summary_without(tested, tainted),
    }


def _summary_without(tested: Predictions, tainted: np.ndarray) -> dict[str, Any] | None:
    return summary_of(tested.subset(~tainted)) if tainted.any() and not tainted.all() else None


def _near_duplicates(tested: Predictions, trained: Sequence[Record], duplicates: Duplicates) -> _Taint:
    count = len(tested.ids)
    families, pairs = duplicates.families, duplicates.pairs
    across = pairs[(pairs[:, 0] < count) & (pairs[:, 1] >= count)]
    _, first = np.unique(across[:, 0], return_index=True)
    return _Taint(
        "near_duplicates",
        "tested images that training has seen, the same or nearly",
        np.isin(families[:count], families[count:]),
        [[tested.paths[i], trained[j - count]["path"]] for i, j in across[first]],
    )


def _groups(tested: Predictions, trained: Sequence[Record]) -> _Taint:
    path_of_group: dict[str, str] = {}
    path_of_field: dict[str, str] = {}
    for record in trained:
        path_of_group.setdefault(group_of(record), record["path"])
        path_of_field.setdefault(source_of(record), record["path"])
    tainted = np.zeros(len(tested.ids), bool)
    examples: dict[str, list[str]] = {}
    for row, record in enumerate(tested.records):
        group = tested.group_names[tested.groups[row]]
        path = path_of_group.get(group) or path_of_field.get(source_of(record))
        if path:
            tainted[row] = True
            examples.setdefault(group, list(dict.fromkeys([group, record["path"], path])))
    title = "tested images whose group, or whose field, trained, too"
    return _Taint("groups", title, tainted, list(examples.values()))


def _composites(tested: Predictions, trained: Sequence[Record]) -> _Taint:
    path_of_composite: dict[str, str] = {}
    for record in trained:
        sources = record.get("sources")
        for source in sources if isinstance(sources, list) else [sources] if sources else []:
            path_of_composite.setdefault(str(source), record["path"])
    tainted, examples = np.zeros(len(tested.ids), bool), []
    for row, record in enumerate(tested.records):
        names = (record["id"], image_id_of(record), record["path"], source_of(record))
        path = next((path_of_composite[name] for name in names if name in path_of_composite), None)
        if is_composite(record) or path:
            tainted[row] = True
            examples.append([record["path"], path or "is synthetic itself"])
    return _Taint("composites", "composites, or sources of those in training", tainted, examples)


def _classes(tested: Predictions, trained: Sequence[Record]) -> dict[str, Any]:
    trained_classes = {record.get("label") for record in trained}
    present = {tested.classes[index] for index in np.unique(tested.truth)}
    examples = [[name, "no tested image"] for name in tested.classes if name not in present]
    known = [name for name in tested.classes if name in present]
    examples += [[name, "no training image"] for name in known if name not in trained_classes]
    title = "classes without tested or without training images"
    counts = {"count": len(examples), "of": len(tested.classes)}
    return {"name": "classes", "title": title, **counts, "examples": examples, "without": None}


def _metadata(tested: Predictions, trained: Sequence[Record], sizes: np.ndarray) -> list[dict[str, Any]]:
    """Check for features beside the pixels that the class can be guessed from; one check without findings if none is.

    `sizes` has width and height of the tested images, then of those of training, 0 where unknown, shape (n, 2).
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
    count = len(tested.ids)
    if (sizes == 0).any() and (sizes > 0).any():  # an unreadable image must not be recognised by its size
        known_sizes, often = np.unique(sizes[sizes[:, 0] > 0], axis=0, return_counts=True)
        sizes = np.where(sizes > 0, sizes, known_sizes[often.argmax()])
    pairs = [tuple(size) for size in sizes.tolist()]
    paths = [*tested.paths, *(record["path"] for record in trained)]
    suffixes = [path.rpartition(".")[2].lower() for path in paths]
    columns: dict[str, tuple[list[Any], list[Any]]] = {
        "image size": (pairs[:count], pairs[count:]),
        "file type": (suffixes[:count], suffixes[count:]),
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


def _codes(tested: list[Any], trained: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return values as integers, equal where values are; tenths of the range of a feature with many numbers."""
    numeric = all(isinstance(value, int | float) for value in (*tested, *trained) if value is not None)
    distinct = {value for value in trained if value is not None}
    if numeric and len(distinct) > _DISTINCT_VALUES:
        edges = np.quantile(sorted(distinct), np.linspace(0, 1, 11)[1:-1])
        coded = [-1 if value is None else int(np.searchsorted(edges, value)) for value in (*tested, *trained)]
    else:
        codes: defaultdict[Any, int] = defaultdict(lambda: len(codes))
        coded = [codes[value] for value in (*tested, *trained)]
    return np.array(coded[: len(tested)]), np.array(coded[len(tested) :])


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
