"""Is a figure to be believed? What tested images share with those that the model learnt from, or was chosen on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from wbctool.evaluation.brief import BRIEF, brief, with_range
from wbctool.evaluation.confidence import plain_table
from wbctool.evaluation.predictions import Predictions
from wbctool.folders import group_of
from wbctool.imaging.duplicates import Duplicates, find_duplicates
from wbctool.records import MODELS, Record, source_of

_EXAMPLES = 5
_FEW = 50  # values of a feature, up to which each stands for itself
_TIMES, _RARE, _MORE = (
    1000,
    0.01,
    0.1,
)  # a feature tells when chance seldom does as well, and it beats chance by so much
_REMEDIES = {
    "near_duplicates": "Next: `wbctool split --near-duplicates`, and train again.",
    "groups": "Next: `wbctool split --group-regex …`, and train again.",
}
_NO_FEATURES = {name for model in MODELS.values() for name in model.model_fields} | {
    *("schema", "run", "temperature", "enhance", "near_duplicate_of", "synthetic", "sources", "original"),
}


def audit(
    tested: Predictions, known: Sequence[Record], jobs: int = 0, on_image: Callable[[bool], None] = lambda failed: None
) -> dict[str, Any]:
    """Look for what makes figures better than they will be on new images.

    Args:
        tested: predictions with their records.
        known: records of the images that the model was trained and validated on.
        jobs: threads, 0 for one per core.
        on_image: called after each image that is looked at.

    Returns:
        `trained_on`, the number of known images; `checks`, each with `name`, `title`, `count`, `of`, `examples`
        and, `without` the tainted images, the brief figures; `tainted` of all checks together, and `without`
        all of them.
    """
    paths = [*tested.paths, *(record["path"] for record in known)]
    found = find_duplicates(paths, jobs, on_image)
    tainting = [_near(tested, known, found), _groups(tested, known), _composites(tested, known)]
    checks = [_finished(tested, *check) for check in tainting]
    tainted = np.any([rows for _, rows, _ in tainting], axis=0)
    checks += [_classes(tested, known), *_metadata(tested, known, found.sizes)]
    unread = len(found.failed)
    return {
        "trained_on": len(known),
        "not_compared": unread,
        "turned": found.turned,
        "checks": checks,
        "tainted": int(tainted.sum()),
        "without": brief(tested.at(~tainted)) if tainted.any() and not tainted.all() else None,
    }


def _finished(tested: Predictions, head: dict[str, Any], rows: np.ndarray, examples: list[list[str]]) -> dict[str, Any]:
    rest = ~rows
    return {
        **head,
        "count": int(rows.sum()),
        "of": len(rows),
        "examples": examples[:_EXAMPLES],
        "without": brief(tested.at(rest)) if rows.any() and rest.any() else None,
    }


def _near(tested: Predictions, known: Sequence[Record], found: Duplicates) -> tuple[dict[str, Any], np.ndarray, list]:
    count = len(tested.ids)
    families = found.families
    rows = np.isin(families[:count], families[count:])
    across = found.pairs[(found.pairs[:, 0] < count) & (found.pairs[:, 1] >= count)]
    _, first = np.unique(across[:, 0], return_index=True)
    examples = [[tested.paths[i], known[j - count]["path"]] for i, j in across[first]]
    return (
        {"name": "near_duplicates", "title": "tested images that training has seen, the same or nearly"},
        rows,
        examples,
    )


def _groups(tested: Predictions, known: Sequence[Record]) -> tuple[dict[str, Any], np.ndarray, list]:
    theirs: dict[str, str] = {}
    for record in known:
        theirs.setdefault(group_of(record), record["path"])
    shared = np.array([name in theirs for name in tested.group_names], bool)
    rows = shared[tested.groups]
    first = {int(group): row for row, group in reversed(list(enumerate(tested.groups)))}
    examples = [
        [tested.group_names[group], tested.paths[first[group]], theirs[tested.group_names[group]]]
        for group in np.flatnonzero(shared)
    ]
    return {"name": "groups", "title": "tested images whose group trained, too"}, rows, examples


def _composites(tested: Predictions, known: Sequence[Record]) -> tuple[dict[str, Any], np.ndarray, list]:
    made_of: dict[str, str] = {}
    for record in known:
        for source in record.get("sources") or ():
            made_of.setdefault(str(source), record["path"])
    rows, examples = np.zeros(len(tested.ids), bool), []
    for row, record in enumerate(tested.records):
        names = (record["id"], record["id"].partition("#")[0], record["path"], source_of(record))
        met = next((made_of[name] for name in names if name in made_of), None)
        if record.get("synthetic") or met:
            rows[row] = True
            examples.append([record["path"], met or "is synthetic itself"])
    return {"name": "composites", "title": "composites, or sources of those in training"}, rows, examples


def _classes(tested: Predictions, known: Sequence[Record]) -> dict[str, Any]:
    trained = {record.get("label") for record in known}
    present = {tested.classes[index] for index in np.unique(tested.truth)}
    untested = [name for name in tested.classes if name not in present]
    untrained = [name for name in tested.classes if name in present and name not in trained]
    examples = [[name, "no tested image"] for name in untested] + [[name, "no training image"] for name in untrained]
    return {
        "name": "classes",
        "title": "classes without tested or without training images",
        "count": len(examples),
        "of": len(tested.classes),
        "examples": examples,
        "without": None,
    }


def _metadata(tested: Predictions, known: Sequence[Record], sizes: np.ndarray) -> list[dict[str, Any]]:
    """What is known of images beside their pixels, and how well the class is guessed from that alone."""
    count = len(tested.ids)
    columns: dict[str, tuple[list, list]] = {"image size": ([tuple(size) for size in sizes[:count].tolist()], [])}
    columns["image size"][1].extend(tuple(size) for size in sizes[count:].tolist())
    columns["file type"] = ([_suffix(path) for path in tested.paths], [_suffix(r["path"]) for r in known])
    keys = {key for r in tested.records for key, value in r.items() if isinstance(value, str | int | float)}
    for key in sorted(keys - _NO_FEATURES):
        columns[key] = ([r.get(key) for r in tested.records], [r.get(key) for r in known])
    labels = {name: index for index, name in enumerate(tested.classes)}
    theirs = np.array([labels.get(record.get("label"), -1) for record in known], np.int64)
    telling, tried = [], 0
    for name, (own, trained) in columns.items():
        ours, values = _coded(own, trained)
        if len(np.unique(values)) < 2 and len(np.unique(ours)) < 2:
            continue
        tried += 1
        telling.append((name, *_guess(ours, values, tested.truth, theirs, len(labels))))
    found = []
    chance = 1 / len(np.unique(tested.truth))
    for name, guess, score, p in telling:
        if p * tried <= _RARE and score >= chance + _MORE:
            misled = guess != tested.truth
            found.append(
                {
                    "name": "metadata",
                    "title": f"the class can be guessed from the {name} alone",
                    "feature": name,
                    "balanced_accuracy": score,
                    "chance": chance,
                    "p": p,
                    "count": int((~misled).sum()),
                    "of": count,
                    "examples": [],
                    "without": brief(tested.at(misled)) if misled.any() else None,
                }
            )
    return found or [
        {
            "name": "metadata",
            "title": f"features beside the pixels that tell the class ({', '.join(columns)})",
            "count": 0,
            "of": len(columns),
            "examples": [],
            "without": None,
        }
    ]


def _suffix(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _coded(own: list, trained: list) -> tuple[np.ndarray, np.ndarray]:
    """Values as numbers of what they have in common; of many numbers, tenths."""
    numeric = all(isinstance(value, int | float) for value in (*own, *trained) if value is not None)
    distinct = {value for value in trained if value is not None}
    if numeric and len(distinct) > _FEW:
        edges = np.quantile(sorted(distinct), np.linspace(0, 1, 11)[1:-1])
        return tuple(
            np.array([-1 if value is None else int(np.searchsorted(edges, value)) for value in values])
            for values in (own, trained)
        )
    codes: defaultdict[Any, int] = defaultdict(lambda: len(codes))
    return np.array([codes[value] for value in own]), np.array([codes[value] for value in trained])


def _guess(
    ours: np.ndarray, values: np.ndarray, truth: np.ndarray, theirs: np.ndarray, classes: int
) -> tuple[np.ndarray, float, float]:
    """The class that training images of the same value are of most, its balanced accuracy, and how rare that is."""
    table = np.zeros((int(max(ours.max(), values.max(initial=0))) + 2, classes))
    np.add.at(table, (values[theirs >= 0], theirs[theirs >= 0]), 1)
    table /= np.maximum(table.sum(axis=0), 1)
    guess = table.argmax(axis=1)[ours]
    support = np.bincount(truth, minlength=classes)

    def score(labels: np.ndarray) -> float:
        hits = np.bincount(labels[labels == guess], minlength=classes)
        return float((hits[support > 0] / support[support > 0]).mean())

    rng = np.random.default_rng(0)
    reached = score(truth)
    as_good = sum(score(rng.permutation(truth)) >= reached - 1e-12 for _ in range(_TIMES))
    return guess, reached, (as_good + 1) / (_TIMES + 1)


def print_audit(found: dict[str, Any], report: dict[str, Any], console: Console) -> None:
    """Print each check, with examples, and the figures with and without the tainted images."""
    console.print(Text(f"Audit, against {found['trained_on']:,} images of training and validation", style="bold"))
    if found["not_compared"]:
        text = f"{found['not_compared']:,} images cannot be read and were not compared"
        console.print(Text(text, style="yellow"))
    for check in found["checks"]:
        bad = check["count"] > 0
        counted = f"{check['count']:,} of {check['of']:,}"
        if check.get("feature"):
            counted = f"balanced accuracy {check['balanced_accuracy']:.3f}, by chance {check['chance']:.3f}"
        console.print(
            Text(f"{'!' if bad else '✓'} {check['title']}: {counted if bad else 'none'}", style="bold" if bad else "")
        )
        for example in check["examples"]:
            console.print(Text("    " + "  =  ".join(example), style="dim"), soft_wrap=True)
        if check["without"] and check.get("feature"):
            _print_pair(report, check["without"], "where it misleads", console)
        elif check["without"]:
            _print_pair(report, check["without"], "without them", console)
        if bad and check["name"] in _REMEDIES:
            console.print(Text(f"    {_REMEDIES[check['name']]}"))
    if sum(bool(check["count"]) for check in found["checks"][:3]) > 1 and found["without"]:
        console.print(Text(f"All together: {found['tainted']:,} tainted"))
        _print_pair(report, found["without"], "without them", console)
    console.print()


def _print_pair(report: dict[str, Any], rest: dict[str, Any], title: str, console: Console) -> None:
    drawn = plain_table()
    drawn.add_column("", no_wrap=True)
    drawn.add_column(f"all {report['n']:,}", justify="right")
    drawn.add_column(f"{title}: {rest['n']:,}", justify="right")
    drawn.add_column("95 % interval", justify="right")
    for key, name in BRIEF.items():
        own, _ = with_range(report[key], None)
        drawn.add_row(f"    {name}", own, *with_range(rest[key], rest["intervals"][key]))
    console.print(drawn)
