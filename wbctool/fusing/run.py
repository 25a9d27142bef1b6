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
from wbctool.dataset import Dataset
from wbctool.device import pick_device, pick_precision
from wbctool.errors import InputError, UsageProblem
from wbctool.evaluation.plots import as_png, learning_curves
from wbctool.folders import group_of
from wbctool.fusing.boosting import Grown, Part, Settings, check, grow
from wbctool.fusing.importance import IMAGES, importance, importance_plot
from wbctool.fusing.search import search
from wbctool.fusing.sources import Measures, Network
from wbctool.fusing.start import margins_of, start_weights, usual_confidence
from wbctool.fusing.table import Table, tabulate
from wbctool.modeling import run_folder
from wbctool.modeling.fused import (
    DEEP,
    MORPHOLOGY,
    PARTS,
    PROBABILITIES,
    FusedArchitecture,
    FusedModel,
    run_names,
    starts,
)
from wbctool.modeling.outcome import HELD, write_dataset, write_predictions
from wbctool.modeling.run_folder import Run, trained_precision
from wbctool.outputs import atomic, check_settings, read_json, write_bytes, write_json
from wbctool.records import preparation_of, to_line

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
        check(self.settings)

    def parts(self, runs: Sequence[Run]) -> tuple[str, ...]:
        """Of `PARTS`, those asked for."""
        asked = {DEEP: bool(runs), PROBABILITIES: self.probabilities and bool(runs), MORPHOLOGY: self.morphology}
        return tuple(part for part in PARTS if asked[part])


@dataclass(frozen=True)
class Place:
    """Where a fused run goes, and what is shown meanwhile."""

    out: Path
    features: Path | None = None
    jobs: int = 0
    overwrite: bool = False
    quiet: bool = False

    @property
    def kept(self) -> Path:
        """Where features are kept."""
        return self.features or self.out / "features"


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
    out, quiet = place.out, place.quiet
    _check(dataset, runs, choices)
    device = pick_device(choices.settings.device)
    precision = precision_of(runs, choices.precision, device)
    networks = [Network(run, device, precision) for run in runs]
    used = [{"run": str(run.path), "digest": network.digest} for run, network in zip(runs, networks, strict=True)]
    asked = {**asdict(choices), **asdict(choices.settings), "device": device.type, "precision": precision}
    settings = {key: value for key, value in asked.items() if key not in ("settings", "jobs")}
    settings |= {"runs": [own["digest"] for own in used], "images": dataset.digest(masks=choices.morphology)}
    run: dict[str, Any] = {"command": "xgboost-fuse", "version": __version__, "settings": settings}
    if place.overwrite:
        for stale in ("model.json", "tuning.jsonl"):
            (out / stale).unlink(missing_ok=True)
    else:
        check_settings(out, "run.json", run)
    if (out / "model.json").exists():
        done = read_json(out / "run.json", "fuse again with --overwrite")
        found = read_json(out / "importance.json", "fuse again with --overwrite")
        return {**done, "importance": found, "done_before": True}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "run.json", {**run, "finished": False})
    measures = Measures(place.jobs) if choices.morphology else None
    table = tabulate(dataset.everything, networks, measures, place.kept, quiet)
    for reason in table.failed.values():
        note(f"failed: {reason}")
    model, grown, tried, counts = _grown(dataset, runs, table, choices, place, device)
    told = _save(out, dataset, model, grown, table, precision, choices, used)
    run |= {"tried": tried, "rounds": grown.rounds, "counts": counts, "failures": sorted(table.failed.values())}
    write_json(out / "run.json", {**run, "runs": used, "finished": True})
    return {**run, "importance": told, "done_before": False}


def _check(dataset: Dataset, runs: Sequence[Run], choices: Choices) -> None:
    if not runs and not choices.morphology:
        raise UsageProblem("nothing to fuse: give a run folder before the images, or --morphology")
    for run in runs:
        if isinstance(run.model, FusedModel) or run.model.architecture.measures:
            raise InputError(f"{run.path}: is fused already; give the runs it was made of, see `wbctool info`")
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


def _parts(dataset: Dataset, table: Table, runs: Sequence[Run], choices: Choices) -> tuple[dict[str, Part], Any]:
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


def _grown(
    dataset: Dataset, runs: Sequence[Run], table: Table, choices: Choices, place: Place, device: torch.device
) -> tuple[FusedModel, Grown, list[dict[str, Any]], dict[str, int]]:
    """The model, what its trees came to, and which parts of the features were tried."""
    parts, weights = _parts(dataset, table, runs, choices)
    train, val = parts["train"], parts["val"]
    asked = choices.parts(runs)
    if not len(val.rows):
        warn("no validation images: trees do not know when to stop, and the run is not calibrated; see `wbctool split`")
    several = len(asked) > 1 and weights and len(val.rows) and not choices.all_features
    settings = replace(choices.settings, device=str(device))
    unmeasured = MORPHOLOGY in asked and _lacks_measures(table, train.rows)
    tried, best = [], None
    for own in [asked, *([part] for part in asked if several)]:
        architecture = FusedArchitecture(
            fused="xgboost",
            members=tuple(run.model.architecture for run in runs),
            names=run_names([run.path for run in runs]),
            widths=tuple(network.features for network in table.networks),
            parts=tuple(own),
            start=weights,
            classes=dataset.classes,
            size=max([run.model.architecture.size for run in runs], default=_BLIND_SIZE),
            unmeasured=unmeasured,
        )
        names = [name for name, _ in architecture.features()]
        grown = grow(
            *(table.reader(own), names, train, val, len(dataset.classes), settings, place.quiet), " + ".join(own)
        )
        tried.append(
            {
                "features": list(own),
                "rounds": grown.rounds,
                "loss": None if math.isnan(grown.loss) else round(grown.loss, 6),
                "accuracy": None if math.isnan(grown.accuracy) else round(grown.accuracy, 6),
            }
        )
        if best is None or grown.loss < best[1].loss:
            best = (architecture, grown)
    architecture, grown = best
    if choices.tune:
        read, names = table.reader(architecture.parts), [name for name, _ in architecture.features()]
        groups = [group_of(dataset.everything[row]) for row in train.rows]
        file = place.out / "tuning.jsonl"
        more = search(*(read, names, train, groups, len(dataset.classes), settings, choices.tune, file, place.quiet))
        settings = replace(settings, parameters=more)
        grown = grow(read, names, train, val, len(dataset.classes), settings, place.quiet)
    model = FusedModel(architecture, [run.model for run in runs])
    model.booster = grown.booster
    return model, grown, tried, {name: len(part.rows) for name, part in parts.items()}


def _save(
    out: Path,
    dataset: Dataset,
    model: FusedModel,
    grown: Grown,
    table: Table,
    precision: str,
    choices: Choices,
    used: list[dict[str, str]],
) -> dict[str, Any]:
    """Write all that a run folder holds, `model.json` last; what is said of the features' importance."""
    parts, weights = model.architecture.parts, model.architecture.start
    write_dataset(out, dataset)
    held, begin, judged = {}, len(dataset.splits["train"]), np.zeros(0, np.int64)
    for split in HELD:
        records = dataset.splits[split]
        rows = np.array([row for row in range(begin, begin + len(records)) if row not in table.failed], np.int64)
        held[split] = ([dataset.everything[row] for row in rows], _shares(model, table, rows))
        judged = rows[:IMAGES] if split == "val" else judged
        begin += len(records)
    calibration = write_predictions(out, str(out), dataset.classes, held)
    if not len(judged):  # no validation: the training images say what the trees use
        judged = np.array([row for row in range(len(dataset.splits["train"])) if row not in table.failed])[:IMAGES]
    start = _start(table, judged, weights)
    told = importance(model, table.reader(parts)(judged), start)
    write_json(out / "importance.json", told)
    write_bytes(out / "importance.png", as_png(importance_plot(told)))
    write_bytes(out / "curves.png", as_png(learning_curves(grown.history, grown.rounds)))
    with atomic(out / "history.jsonl", "w") as stream:
        stream.writelines(to_line(row) + "\n" for row in grown.history)
    training = {**asdict(choices), "settings": {**asdict(choices.settings)}, "precision": precision, "runs": used}
    about = {"training": training, "preparation": dataset.preparation, "calibration": calibration}
    run_folder.save(out, model, {**about, "best_epoch": grown.rounds})
    return told


def _lacks_measures(table: Table, rows: np.ndarray) -> bool:
    """Whether nothing is measured of some image."""
    parts = (rows[begin : begin + _BATCH] for begin in range(0, len(rows), _BATCH))
    return any(bool(np.isnan(table.measures(own)).all(1).any()) for own in parts)


def _start(table: Table, rows: np.ndarray, weights: Sequence[float]) -> np.ndarray | None:
    return starts(table.shares(rows), weights)


def _shares(model: FusedModel, table: Table, rows: np.ndarray) -> np.ndarray:
    """Probabilities of images, (n, classes), as `predict` will give them."""
    found = [np.zeros((0, len(model.architecture.classes)))]
    read = table.reader(model.architecture.parts)
    for begin in range(0, len(rows), _BATCH):
        own = rows[begin : begin + _BATCH]
        margins = model.boosted(read(own), _start(table, own, model.architecture.start)).astype(np.float64)
        found.append(torch.softmax(torch.from_numpy(margins), 1).numpy())
    return np.concatenate(found)
