"""The audit: what do tested images have in common with those that the model was trained, or chosen, on?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wbctool.evaluation.audit_metadata import check_metadata
from wbctool.evaluation.predictions import Predictions
from wbctool.evaluation.report import summary_of
from wbctool.records import Record, group_of, image_id_of, source_of
from wbctool.records.composites import is_composite

if TYPE_CHECKING:
    from wbctool.imaging.duplicates import Duplicates

_EXAMPLES = 5


class _Taint(NamedTuple):
    """A check that found tested images, as a mask of shape (n,), and examples of what training has in common."""

    name: str
    title: str
    images: np.ndarray
    examples: list[list[str]]


def audit_of(
    tested: Predictions,
    trained: Sequence[Record],
    jobs: int = 0,
    on_image: Callable[[bool], None] = lambda failed: None,
) -> dict[str, Any]:
    """Look for what makes metrics better than they will be on new images.

    Args:
        tested: predictions with their records.
        trained: records of the images that the model was trained and validated on.
        jobs: threads, 0 for one per core.
        on_image: called after each image that is compared.

    Returns:
        `trained_on`, the number of training images; `checks`, each with `name`, `title`, `count`, `of`, `examples` and,
        `without` the tainted images, the summary; `tainted` by any check, and `without` all of those.
    """
    from wbctool.imaging.duplicates import find_duplicates  # needs OpenCV, which other reports do not

    paths = [*tested.paths, *(record["path"] for record in trained)]
    duplicates = find_duplicates(paths, jobs, on_image)
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
        "checks": [*checks, _classes(tested, trained), *check_metadata(tested, trained, duplicates.sizes)],
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
    examples += [
        [name, "no training image"] for name in tested.classes if name in present and name not in trained_classes
    ]
    return {
        "name": "classes",
        "title": "classes without tested or without training images",
        "count": len(examples),
        "of": len(tested.classes),
        "examples": examples,
        "without": None,
    }
