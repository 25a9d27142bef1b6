"""Is a figure to be believed? What tested images share with those that the model learnt from, or was chosen on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from wbctool.evaluation.brief import BRIEF, brief, with_range
from wbctool.evaluation.confidence import plain_table
from wbctool.evaluation.predictions import Predictions
from wbctool.records import MODELS, Record, group_of, image_id_of, source_of
from wbctool.records.composites import is_composite

if TYPE_CHECKING:
    from wbctool.imaging.duplicates import Duplicates

_Check = tuple[dict[str, Any], np.ndarray, list[list[str]]]  # what is looked for, the tested images, examples
_EXAMPLES = 5
_FEW = 50  # values of a feature, up to which each stands for itself
_RARE, _MORE = 0.01, 0.1  # a feature tells when chance seldom does as well, and it beats chance by so much
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
    from wbctool.imaging.duplicates import find_duplicates  # reports are printed without OpenCV

    paths = [*tested.paths, *(record["path"] for record in known)]
    found = find_duplicates(paths, jobs, on_image)
    tainting = [_near(tested, known, found), _groups(tested, known), _composites(tested, known)]
    checks = [_finished(tested, *check) for check in tainting]
    tainted = np.any([rows for _, rows, _ in tainting], axis=0)
    checks += [_classes(tested, known), *_metadata(tested, known, found.sizes)]
    unread = len(found.failed)
    return {
        "trained_on": len(known),
        "of": "training" if tested.split == "val" else "training and validation",
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


def _near(tested: Predictions, known: Sequence[Record], found: Duplicates) -> _Check:
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


def _groups(tested: Predictions, known: Sequence[Record]) -> _Check:
    theirs: dict[str, str] = {}
    fields: dict[str, str] = {}
    for record in known:
        theirs.setdefault(group_of(record), record["path"])
        fields.setdefault(source_of(record), record["path"])
    rows = np.zeros(len(tested.ids), bool)
    examples: dict[str, list[str]] = {}
    for row, record in enumerate(tested.records):
        group = tested.group_names[tested.groups[row]]
        met = theirs.get(group) or fields.get(source_of(record))
        if met:
            rows[row] = True
            examples.setdefault(group, list(dict.fromkeys([group, record["path"], met])))
    head = {"name": "groups", "title": "tested images whose group, or whose field, trained, too"}
    return head, rows, list(examples.values())


def _composites(tested: Predictions, known: Sequence[Record]) -> _Check:
    made_of: dict[str, str] = {}
    for record in known:
        named = record.get("sources")
        for source in named if isinstance(named, list) else [named] if named else []:
            made_of.setdefault(str(source), record["path"])
    rows, examples = np.zeros(len(tested.ids), bool), []
    for row, record in enumerate(tested.records):
        names = (record["id"], image_id_of(record), record["path"], source_of(record))
        met = next((made_of[name] for name in names if name in made_of), None)
        if is_composite(record) or met:
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
    if (sizes == 0).any() and (sizes > 0).any():  # an image that cannot be read tells nothing by its size
        known_sizes, often = np.unique(sizes[sizes[:, 0] > 0], axis=0, return_counts=True)
        sizes = np.where(sizes > 0, sizes, known_sizes[often.argmax()])
    columns: dict[str, tuple[list[Any], list[Any]]] = {
        "image size": ([tuple(size) for size in sizes[:count].tolist()], [])
    }
    columns["image size"][1].extend(tuple(size) for size in sizes[count:].tolist())
    columns["file type"] = ([_suffix(path) for path in tested.paths], [_suffix(r["path"]) for r in known])
    keys = {key for r in tested.records for key, value in r.items() if isinstance(value, str | int | float)}
    for key in sorted(keys - _NO_FEATURES):
        columns[key] = ([_plain(r.get(key)) for r in tested.records], [_plain(r.get(key)) for r in known])
    labels: dict[str | None, int] = {name: index for index, name in enumerate(tested.classes)}
    theirs = np.array([labels.get(record.get("label"), -1) for record in known], np.int64)
    telling = []
    for name, (own, trained) in columns.items():
        ours, values = _coded(own, trained)
        if len(np.unique(values)) < 2 and len(np.unique(ours)) < 2:
            continue
        telling.append((name, ours, values))
    found = []
    chance = 1 / len(np.unique(tested.truth))
    for name, ours, values in telling:
        guess = _guess(ours, values, theirs, len(labels))
        score, p = _chance_of(guess, tested, len(labels), int(2 * len(telling) / _RARE))
        if p * len(telling) <= _RARE and score >= chance + _MORE:
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


def _plain(value: Any) -> str | float | None:
    """A value that can be compared; None of lists and objects."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return str(value) if isinstance(value, str | int | float) else None


def _suffix(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _coded(own: list[Any], trained: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Values as numbers of what they have in common; of many numbers, tenths."""
    numeric = all(isinstance(value, int | float) for value in (*own, *trained) if value is not None)
    distinct = {value for value in trained if value is not None}
    if numeric and len(distinct) > _FEW:
        edges = np.quantile(sorted(distinct), np.linspace(0, 1, 11)[1:-1])
        ours, theirs = (
            np.array([-1 if value is None else int(np.searchsorted(edges, value)) for value in values])
            for values in (own, trained)
        )
        return ours, theirs
    codes: defaultdict[Any, int] = defaultdict(lambda: len(codes))
    return np.array([codes[value] for value in own]), np.array([codes[value] for value in trained])


def _guess(ours: np.ndarray, values: np.ndarray, theirs: np.ndarray, classes: int) -> np.ndarray:
    """The class that training images of the same value are of most, relative to their classes' sizes, (n,)."""
    table = np.zeros((int(max(ours.max(), values.max(initial=0))) + 2, classes))
    np.add.at(table, (values[theirs >= 0], theirs[theirs >= 0]), 1)
    table /= np.maximum(table.sum(axis=0), 1)
    return table.argmax(axis=1)[ours]


def _chance_of(guess: np.ndarray, tested: Predictions, classes: int, times: int) -> tuple[float, float]:
    """The balanced accuracy of guesses, and how often chance does as well: labels are permuted over whole groups."""
    count = len(tested.group_names)
    votes = [
        np.bincount(tested.groups * classes + own, minlength=count * classes).reshape(count, classes).argmax(axis=1)
        for own in (guess, tested.truth)
    ]

    def score(guessed: np.ndarray, labels: np.ndarray) -> float:
        support = np.bincount(labels, minlength=classes)
        hits = np.bincount(labels[labels == guessed], minlength=classes)
        return float((hits[support > 0] / support[support > 0]).mean())

    rng = np.random.default_rng(0)
    reached = score(*votes)
    as_good = sum(score(votes[0], rng.permutation(votes[1])) >= reached - 1e-12 for _ in range(times))
    return score(guess, tested.truth), (as_good + 1) / (times + 1)


def shortfalls(found: dict[str, Any]) -> list[str]:
    """What an audit could not look at."""
    said = []
    if found["not_compared"]:
        said.append(f"{found['not_compared']:,} images cannot be read and were not compared")
    if not found["turned"]:
        said.append("too many images to look for copies that are turned (by other than quarters), sheared or cut out")
    return said


def outcome_of(check: dict[str, Any], found: dict[str, Any]) -> tuple[str, str]:
    """How a check of an audit ended: `!`, `?` or `✓`, and in words."""
    if check["count"]:
        if check.get("feature"):
            return "!", f"balanced accuracy {check['balanced_accuracy']:.3f}, by chance {check['chance']:.3f}"
        return "!", f"{check['count']:,} of {check['of']:,}"
    if check["name"] == "near_duplicates" and found["not_compared"]:
        return "?", "not all could be looked at"
    return "✓", "none"


def print_audit(found: dict[str, Any], report: dict[str, Any], console: Console) -> None:
    """Print each check, with examples, and the figures with and without the tainted images."""
    console.print(Text(f"Audit, against {found['trained_on']:,} images of {found['of']}", style="bold"))
    for text in shortfalls(found):
        console.print(Text(text, style="yellow"))
    for check in found["checks"]:
        mark, words = outcome_of(check, found)
        bad = mark == "!"
        console.print(Text(f"{mark} {check['title']}: {words}", style="bold" if bad else ""))
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
