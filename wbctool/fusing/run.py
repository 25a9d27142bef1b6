"""From runs and images to a fused run folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbctool import __version__
from wbctool.console import note, warn
from wbctool.device import pick_device, pick_precision
from wbctool.errors import InputError, UsageProblem
from wbctool.fusing.boosting import Grown, Part, Settings, grow
from wbctool.fusing.importance import IMAGES, importance, importance_plot
from wbctool.fusing.search import search
from wbctool.fusing.sources import Measures, Network
from wbctool.fusing.start import margins_of, start_weights, usual_confidence
from wbctool.fusing.table import Table, tabulate
from wbctool.inputs.dataset import Dataset
from wbctool.modeling import run_folder
from wbctool.modeling.fused import (
    DEEP,
    MORPHOLOGY,
    PARTS,
    PROBABILITIES,
    FusedArchitecture,
    FusedModel,
    run_names,
    start_margins,
)
from wbctool.modeling.holdout import HOLDOUT, write_dataset, write_predictions
from wbctool.modeling.predictor import missing_measures
from wbctool.modeling.run_folder import Run, trained_precision
from wbctool.pipeline.locks import locked
from wbctool.pipeline.output_folder import check_settings
from wbctool.records import group_of, preparation_of, to_line
from wbctool.records.storage import atomic, read_json, write_bytes, write_json
from wbctool.statistics.plots import as_png, learning_curves

STARTS = ("runs", "none")
_BLIND_SIZE = 32  # side of images where no network looks at them, pixels
_BATCH = 4096  # rows of features


@dataclass(frozen=True)
class Choices:
    """What is fused, and how.

    Attributes:
        probabilities: trees see the networks' probabilities, too.
        morphology: and what the cell measures.
        start: `runs`, trees mend the networks' answer; or `none`, they find their own.
        all_features: trees see all of it, whether validation gains by it or not.
        tune: settings to try by cross-validation; 0 for the given ones.
        precision: of the networks: `float32`, `bf16`, or `auto`: as they were trained.
        settings: of the trees.
    """

    probabilities: bool = False
    morphology: bool = False
    start: str = "runs"
    all_features: bool = False
    tune: int = 0
    precision: str = "auto"
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise UsageProblem(f"--start {self.start}: choose from {', '.join(STARTS)}")
        if self.start == "none" and self.all_features:
            raise UsageProblem("--start none: uses all features by itself; leave --all-features out")

    def parts(self, runs: Sequence[Run]) -> tuple[str, ...]:
        """Of `PARTS`, those asked for."""
        asked = {DEEP: bool(runs), PROBABILITIES: self.probabilities and bool(runs), MORPHOLOGY: self.morphology}
        return tuple(part for part in PARTS if asked[part])


@dataclass(frozen=True)
class Place:
    """Where a fused run goes, and what is shown meanwhile.

    Attributes:
        out: the run folder.
        features: where features are kept; None for a folder inside it.
        jobs: processes that measure cells; 0 for one a core.
        overwrite: whether it is made anew.
        quiet: whether progress is left out.
    """

    out: Path
    features: Path | None = None
    jobs: int = 0
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        for folder, option in ((self.out, "-o"), (self.features, "--features")):
            if folder and folder.exists() and not folder.is_dir():
                raise InputError(f"{option} {folder}: is a file; give a folder")

    @property
    def kept(self) -> Path:
        """Where features are kept."""
        return self.features or self.out / "features"


def networks_of(runs: Sequence[Run], precision: str, device: torch.device) -> list[Network]:
    """The networks of runs, as a fused model has them.

    Raises:
        InputError: a run is fused itself.
    """
    for run in runs:
        if run.model.architecture.trees:
            raise InputError(f"{run.path}: is fused already; give the runs it was made of, see `wbctool info`")
    through = max([run.model.architecture.size for run in runs], default=0)
    return [Network(run, device, precision, through) for run in runs]


def precision_of(runs: Sequence[Run], asked: str, device: torch.device) -> str:
    """One precision for all networks: as they were trained, where they agree."""
    trained = {trained_precision(run.info) for run in runs}
    if asked == "auto" and len(trained) == 1:
        (asked,) = trained
    return pick_precision(asked, device)


def fuse(dataset: Dataset, runs: Sequence[Run], choices: Choices, place: Place) -> dict[str, Any]:
    """Fuse runs into gradient-boosted trees; the outcome is a run folder.

    Trees are grown on the training split. Validation says when to stop and which parts of the features help;
    test images are only predicted.

    Args:
        dataset: with splits.
        runs: loaded on the device; may be none, with morphology.
        choices: what is fused, and how.
        place: where it goes.

    Returns:
        What `run.json` says, with `done_before`, and `importance`.

    Raises:
        UsageProblem, InputError, DeviceError: as the names say, with the next step.
    """
    _check(dataset, runs, choices)
    with locked(place.out):
        return _fuse(dataset, runs, choices, place)


def _fuse(dataset: Dataset, runs: Sequence[Run], choices: Choices, place: Place) -> dict[str, Any]:
    out, quiet = place.out, place.quiet
    device = pick_device(choices.settings.device)
    precision = precision_of(runs, choices.precision, device)
    networks = networks_of(runs, precision, device)
    used = [{"run": str(run.path), "digest": network.digest} for run, network in zip(runs, networks, strict=True)]
    asked = {**asdict(choices), **asdict(choices.settings), "device": device.type, "precision": precision}
    settings = {key: value for key, value in asked.items() if key not in ("settings", "jobs")}
    settings |= {"runs": [own["digest"] for own in used], "images": dataset.digest(masks=choices.morphology)}
    run: dict[str, Any] = {"command": "xgboost-fuse", "version": __version__, "settings": settings}
    if place.overwrite:
        run_folder.clear(out)
    else:
        check_settings(out, "run.json", run)
    if (out / "model.json").exists():
        done = read_json(out / "run.json", "fuse again with --overwrite")
        found = read_json(out / "importance.json", "fuse again with --overwrite")
        return {**done, "importance": found, "done_before": True}
    write_json(out / "run.json", {**run, "finished": False})
    measures = Measures(place.jobs) if choices.morphology else None
    table = tabulate(dataset.everything, networks, measures, place.kept, quiet)
    lenient = choices.morphology and _unmeasured(dataset, table)
    for reason in table.failed.values():
        note(f"failed: {reason}")
    model, grown, settled, more = _grown(dataset, runs, table, choices, place, device, lenient)
    run |= {**more, "rounds": grown.rounds, "failures": sorted(table.failed.values()), "runs": used}
    choices = replace(choices, settings=replace(choices.settings, parameters=settled.parameters))
    about = {**asdict(choices), "precision": precision, "runs": used}
    told = _save(out, dataset, model, grown, table, about, {**run, "finished": True})
    return {**run, "importance": told, "done_before": False}


def _check(dataset: Dataset, runs: Sequence[Run], choices: Choices) -> None:
    if not runs and not choices.morphology:
        raise UsageProblem("nothing to fuse: give a run folder before the images, or --morphology")
    if choices.probabilities and not runs:
        raise UsageProblem("--probabilities: are those of runs; give a run folder before the images")
    for run in runs:
        if choices.start == "runs" and run.classes != dataset.classes:
            raise InputError(
                f"{run.path}: knows {', '.join(run.classes)}; the images are {', '.join(dataset.classes)}: "
                "trees cannot start from its answer; give --start none, or --classes"
            )
    if choices.morphology:
        with_mask = sum(isinstance(record.get("mask"), str) for record in dataset.everything)
        if not with_mask:
            raise InputError("--morphology: no record carries a mask; give the records of `wbctool segment` or `crop`")
        without = len(dataset.everything) - with_mask
        if without:
            warn(f"{without:,} images carry no mask: their morphology is missing (`wbctool segment` and `crop`)")
    for run in runs:
        other = sum(preparation_of(r) != run.info.get("preparation", {}) for r in dataset.everything)
        if other:
            warn(f"{other:,} images were prepared otherwise than those of {run.path} (see `wbctool info {run.path}`)")


def _parts(
    dataset: Dataset, table: Table, runs: Sequence[Run], choices: Choices
) -> tuple[dict[str, Part], tuple[float, ...]]:
    """The images of each split that could be read, and the margins that trees start from."""
    rows, begin = {}, 0
    for name, records in dataset.splits.items():
        places = np.arange(begin, begin + len(records))
        rows[name] = np.array([place for place in places if place not in table.failed], np.int64)
        begin += len(records)
    targets = np.array([dataset.classes.index(record["label"]) for record in dataset.everything], np.int64)
    lost = sorted(set(range(len(dataset.classes))) - set(targets[rows["train"]].tolist()))
    if lost:
        names = ", ".join(dataset.classes[number] for number in lost)
        raise InputError(f"class {names}: none of its training images can be read; mend them or use --classes")
    start = np.full((len(targets), len(dataset.classes)), np.nan, np.float32)
    weights = start_weights(runs) if choices.start == "runs" else ()
    good = np.concatenate(list(rows.values()))
    if weights:
        usual = [usual_confidence(run) for run in runs]
        start[good] = margins_of(table.shares(good), weights, usual, np.searchsorted(good, rows["train"]))
    parts = {name: Part(own, targets[own], start[own] if weights else None) for name, own in rows.items()}
    return parts, weights


def _unmeasured(dataset: Dataset, table: Table) -> bool:
    """Whether something was learnt of images of which nothing is measured; where not, others of these fail."""
    missing = [
        row
        for begin in range(0, len(dataset.everything), _BATCH)
        for row in _without_measures(table, np.arange(begin, min(begin + _BATCH, len(dataset.everything))))
    ]
    learnt = len(dataset.splits["train"])
    if any(row < learnt for row in missing):
        return True
    for row in missing:
        table.failed[row] = missing_measures(dataset.everything[row])
    return False


def _without_measures(table: Table, rows: np.ndarray) -> list[int]:
    good = np.array([row for row in rows if row not in table.failed], np.int64)
    measured = table.measures(good) if len(good) else None
    return [] if measured is None else good[np.isnan(measured).all(1)].tolist()


def _grown(
    dataset: Dataset,
    runs: Sequence[Run],
    table: Table,
    choices: Choices,
    place: Place,
    device: torch.device,
    lenient: bool,
) -> tuple[FusedModel, Grown, Settings, dict[str, Any]]:
    """The model, what its trees came to, their settings; and for `run.json` what was tried and the images."""
    parts, weights = _parts(dataset, table, runs, choices)
    train, val = parts["train"], parts["val"]
    asked = choices.parts(runs)
    if not len(val.rows):
        warn("no validation images: trees do not know when to stop, and the run is not calibrated; see `wbctool split`")
    several = len(asked) > 1 and weights and len(val.rows) and not choices.all_features
    settings = replace(choices.settings, device=str(device))
    tried, found = [], []
    for own in [asked, *((part,) for part in asked if several)]:
        architecture = FusedArchitecture(
            fused="xgboost",
            members=tuple(run.model.architecture for run in runs),
            names=run_names([run.path for run in runs]),
            widths=tuple(network.features for network in table.networks),
            parts=own,
            start=weights,
            classes=dataset.classes,
            size=max([run.model.architecture.size for run in runs], default=_BLIND_SIZE),
            unmeasured=lenient,
        )
        names = [name for name, _ in architecture.features()]
        read, what, wary = table.reader(own), " + ".join(own), _is_wary(own, choices)
        grown = grow(read, names, train, val, len(dataset.classes), settings, place.quiet, what, wary)
        tried.append(_tried(list(own), grown))
        found.append((grown.loss, MORPHOLOGY in own, len(own), architecture, grown))
    # of equals, such as where no tree helps, what asks for least
    *_, architecture, grown = min(found, key=lambda one: one[:3]) if several else found[0]
    if choices.tune:
        read, names = table.reader(architecture.parts), [name for name, _ in architecture.features()]
        groups = [group_of(dataset.everything[row]) for row in train.rows]
        file = place.out / "tuning.jsonl"
        more = search(*(read, names, train, groups, len(dataset.classes), settings, choices.tune, file, place.quiet))
        settings = replace(settings, parameters=more)
        wary = _is_wary(architecture.parts, choices)
        grown = grow(read, names, train, val, len(dataset.classes), settings, place.quiet, "trees", wary)
        tried.append(_tried([*architecture.parts, "tuned"], grown))
    model = FusedModel(architecture, [run.model for run in runs])
    model.booster = grown.booster
    counts = {name: len(part.rows) for name, part in parts.items()}
    return model, grown, settings, {"tried": tried, "counts": counts}


def _is_wary(parts: tuple[str, ...], choices: Choices) -> bool:
    """Whether trees must gain more than chance: what has learnt from the training images gains on these too easily."""
    return parts != (MORPHOLOGY,) and not choices.all_features


def _tried(features: list[str], grown: Grown) -> dict[str, Any]:
    figures = {"loss": grown.loss, "accuracy": grown.accuracy}
    rounded = {name: None if math.isnan(value) else round(value, 6) for name, value in figures.items()}
    return {"features": features, "rounds": grown.rounds, **rounded}


def _save(
    out: Path,
    dataset: Dataset,
    model: FusedModel,
    grown: Grown,
    table: Table,
    training: dict[str, Any],
    run: dict[str, Any],
) -> dict[str, Any]:
    """Write all that a run folder holds, `model.json` last; what is said of the features' importance."""
    parts, weights = model.architecture.parts, model.architecture.start
    write_dataset(out, dataset)
    held, begin, judged = {}, len(dataset.splits["train"]), np.zeros(0, np.int64)
    for split in HOLDOUT:
        records = dataset.splits[split]
        rows = np.array([row for row in range(begin, begin + len(records)) if row not in table.failed], np.int64)
        held[split] = ([dataset.everything[row] for row in rows], _shares(model, table, rows))
        judged = _some(rows) if split == "val" else judged
        begin += len(records)
    calibration = write_predictions(out, str(out), dataset.classes, held)
    if not len(judged):  # no validation: the training images say what the trees use
        judged = _some(np.array([row for row in range(len(dataset.splits["train"])) if row not in table.failed]))
    start = _start(table, judged, weights)
    told = importance(model, table.reader(parts)(judged), start)
    write_json(out / "importance.json", told)
    write_bytes(out / "importance.png", as_png(importance_plot(told)))
    write_bytes(out / "curves.png", as_png(learning_curves(grown.history, grown.rounds)))
    with atomic(out / "history.jsonl", "w") as stream:
        stream.writelines(to_line(row) + "\n" for row in grown.history)
    write_json(out / "run.json", run)
    about = {"training": training, "preparation": dataset.preparation, "calibration": calibration}
    run_folder.save(out, model, {**about, "best_epoch": grown.rounds})
    return told


def _some(rows: np.ndarray) -> np.ndarray:
    """Rows from all over, as they are sorted by class."""
    return rows[np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).astype(np.int64)]


def _start(table: Table, rows: np.ndarray, weights: Sequence[float]) -> np.ndarray | None:
    return start_margins(table.shares(rows), weights)


def _shares(model: FusedModel, table: Table, rows: np.ndarray) -> np.ndarray:
    """Probabilities of images, (n, classes), as `predict` will give them."""
    found = [np.zeros((0, len(model.architecture.classes)))]
    read = table.reader(model.architecture.parts)
    for begin in range(0, len(rows), _BATCH):
        own = rows[begin : begin + _BATCH]
        margins = model.boosted(read(own), _start(table, own, model.architecture.start)).astype(np.float64)
        found.append(torch.softmax(torch.from_numpy(margins), 1).numpy())
    return np.concatenate(found)
