"""From a dataset to a run folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbctool import __version__
from wbctool.console import note
from wbctool.device import pick_device, pick_precision
from wbctool.errors import InputError, UsageProblem
from wbctool.inputs.dataset import Dataset
from wbctool.measuring.batches import Measuring
from wbctool.modeling import run_folder
from wbctool.modeling.architecture import Architecture
from wbctool.modeling.classifier import Classifier, default_normalisation
from wbctool.modeling.ensembles import KINDS, AverageEnsemble, CbamEnsemble, EnsembleArchitecture, make_ensemble
from wbctool.modeling.fused import BOOSTER, FusedModel
from wbctool.modeling.kinds import Model
from wbctool.modeling.outcome import HELD, write_dataset, write_predictions
from wbctool.modeling.predictor import BATCH, probabilities, unmeasured
from wbctool.modeling.weights import load_pretrained
from wbctool.pipeline.locks import locked
from wbctool.pipeline.output_folder import check_settings
from wbctool.records import Record, to_line
from wbctool.records.storage import atomic, read_json, write_bytes, write_json
from wbctool.training.feed import Pixels
from wbctool.training.loop import State, Trainer
from wbctool.training.losses import make_loss
from wbctool.training.phases import Feed, Samples
from wbctool.training.probe import NEIGHBOURS, PROBES, fit_probe
from wbctool.training.processes import Processes
from wbctool.training.recipe import Recipe


@dataclass(frozen=True)
class Running:
    """How a training is done; none of it changes what is learnt.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        jobs: threads that decode, 0 for one per core.
        cache_gb: gigabytes of decoded images to keep on the disk; None for what it holds.
        overwrite: start anew.
        compiled: through `torch.compile`.
        tensorboard: also write events for it.
        quiet: nothing on stderr.
    """

    device: str = "auto"
    jobs: int = 0
    cache_gb: float | None = None
    overwrite: bool = False
    compiled: bool = False
    tensorboard: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Kind:
    """What is made, where it is not one network trained in phases.

    Attributes:
        probe: `linear` or `knn` on frozen features.
        ensemble: `average` or `cbam` of `members`.
        members: run folders.
    """

    probe: str | None = None
    ensemble: str | None = None
    members: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for value, names, option in ((self.probe, PROBES, "--probe"), (self.ensemble, KINDS, "--ensemble")):
            if value is not None and value not in names:
                raise UsageProblem(f"{option} {value}: choose from {', '.join(names)}")
        if self.probe and self.ensemble:
            raise UsageProblem("--probe and --ensemble do not go together")
        if self.ensemble and len(self.members) < 2:
            raise UsageProblem("--ensemble: give two run folders or more before the images")
        if self.members and not self.ensemble:
            raise UsageProblem(f"{self.members[0]} is a run folder; --ensemble average or cbam makes one of several")

    def settings(self) -> dict[str, Any]:
        """As `run.json` keeps it."""
        members = [run_folder.digest_of(member, *_files_of(member)) for member in self.members]
        chosen = {"probe": self.probe, "ensemble": self.ensemble, "members": members or None}
        return {key: value for key, value in chosen.items() if value}


def _files_of(member: Path) -> tuple[str, ...]:
    """What decides a member's answers; of fused ones trees, too."""
    return ("weights.safetensors", *((BOOSTER,) if (member / BOOSTER).is_file() else ()))


def train(
    dataset: Dataset,
    out: Path,
    recipe: Recipe,
    running: Running,
    kind: Kind | None = None,
) -> dict[str, Any]:
    """Train a classifier into a run folder, or take up or skip what an earlier call did.

    Args:
        dataset: what to train on.
        out: the run folder.
        recipe: the choices.
        running: how it is done.
        kind: what is made, where it is a probe or an ensemble.

    Returns:
        What `run.json` says: counts, epochs, best epoch, whether it was done before.

    Raises:
        UsageProblem, InputError, DeviceError: as the names say, with the next step.
    """
    processes = Processes(running.device)
    with locked(out) if processes.is_main else nullcontext():
        return _train(dataset, out, recipe, running, kind or Kind(), processes)


def _train(
    dataset: Dataset, out: Path, recipe: Recipe, running: Running, kind: Kind, processes: Processes
) -> dict[str, Any]:
    if recipe.batch_size < 4 * processes.count:
        raise UsageProblem(
            f"--batch-size {recipe.batch_size} is shared out among {processes.count} processes: "
            f"give {4 * processes.count} or more"
        )
    device = processes.device or pick_device(running.device)
    recipe = replace(recipe, precision=pick_precision(recipe.precision, device))
    if kind.ensemble:
        recipe = replace(recipe, frozen_epochs=recipe.epochs)
    loud = processes.is_main and not running.quiet
    settings = {**recipe.to_json(), **kind.settings(), "device": device.type, "images": dataset.digest()}
    run: dict[str, Any] = {"command": "train", "version": __version__, "settings": settings}
    if processes.is_main:
        _open(out, run, running.overwrite)
    processes.wait()
    if (out / "model.json").exists():
        if processes.is_main:
            shutil.rmtree(out / "resume", ignore_errors=True)  # of a call that was killed after its last step
        return {**run, "failures": read_json(out / "run.json", "train again").get("failures", []), "done_before": True}
    torch.manual_seed(recipe.seed)
    model, loaded = _make_model(dataset, recipe, kind, device)
    if loud:
        note(f"{model.architecture.backbone}, {loaded}; {device.type}, {recipe.precision}")
    model.to(device).to(memory_format=torch.channels_last)
    counts = torch.bincount(torch.tensor([dataset.classes.index(r["label"]) for r in dataset.splits["train"]]))
    loss = make_loss(recipe, dataset.classes, counts)
    if processes.is_main:
        write_json(out / "run.json", {**run, "finished": False})
        pixels = _pixels(dataset, out, recipe, running)
    processes.wait()
    if not processes.is_main:
        pixels = _pixels(dataset, out, recipe, replace(running, quiet=True))
    samples = _samples(dataset, pixels.failed)
    if processes.is_main:
        for reason in pixels.failed.values():
            note(f"failed: {reason}")
    state = State()
    if kind.probe and isinstance(model, Classifier):
        weighted = recipe.class_weights != "none"
        strength = fit_probe(model, pixels, samples["train"], samples["val"], recipe.precision, weighted, running.quiet)
        run["strength"] = strength
    elif not isinstance(model, AverageEnsemble):
        feed = Feed(pixels, samples["train"], samples["val"], device, recipe, processes, _room(device), running.quiet)
        trainer = Trainer(model, feed, recipe, loss, out, processes, running.quiet, running.compiled)
        done = trainer.resume()
        if done and loud:
            note(f"going on after epoch {done}")
        state = trainer.run(
            _on_epoch(out, recipe, running, len(samples["train"].rows)) if processes.is_main else lambda state: None
        )
    if processes.is_main:
        write_dataset(out, dataset)
        held = _held(model, device, dataset, samples, pixels, recipe.precision, running.jobs)
        calibration = write_predictions(out, str(out), dataset.classes, held)
        run |= {
            "weights": loaded,
            "counts": {split: len(own.rows) for split, own in samples.items()},
            "failures": sorted(pixels.failed.values()),
        }
        about = {"training": recipe.to_json(), "preparation": dataset.preparation, "calibration": calibration}
        _finish(out, model, about, state, run)
    processes.wait()
    return {**run, "failures": sorted(pixels.failed.values()), "done_before": False}


def _open(out: Path, run: dict[str, Any], overwrite: bool) -> None:
    if overwrite:
        run_folder.clear(out)
    else:
        check_settings(out, "run.json", run)


def _make_model(
    dataset: Dataset, recipe: Recipe, kind: Kind, device: torch.device
) -> tuple[Classifier | AverageEnsemble | CbamEnsemble, str]:
    """The model with what it starts from, and that in words."""
    if kind.ensemble:
        members = [run_folder.load(path, device) for path in kind.members]
        for member in members:
            if isinstance(member.model, FusedModel) and kind.ensemble != "average":
                raise InputError(
                    f"{member.path}: is fused by trees, which have no feature maps; use --ensemble average"
                )
            if not isinstance(member.model, Classifier | FusedModel):
                raise InputError(f"{member.path}: is an ensemble itself; give its members")
            if member.classes != dataset.classes:
                raise InputError(
                    f"{member.path}: knows {', '.join(member.classes)}; "
                    f"the images to train on are {', '.join(dataset.classes)}; they must be the same classes"
                )
        architectures = tuple(member.model.architecture for member in members)
        joined = make_ensemble(
            EnsembleArchitecture(
                ensemble=kind.ensemble,
                members=architectures,
                classes=dataset.classes,
                size=max(architecture.size for architecture in architectures),
                dense=recipe.dense,
                norm=recipe.norm,
                dropout=recipe.dropout,
                symmetries=recipe.symmetries,
            )
        )
        for own, member in zip(joined.members, members, strict=True):
            own.load_state_dict(member.model.state_dict())
            if isinstance(own, FusedModel):
                own.load_files(member.model.files().__getitem__)
        return joined, f"weights of {len(members)} runs"
    mean, std = default_normalisation(recipe.backbone)
    architecture = Architecture(
        backbone=recipe.backbone,
        classes=dataset.classes,
        size=recipe.size,
        attention=recipe.attention,
        attention_at=recipe.attention_at,
        pool=recipe.pool,
        norm="none" if kind.probe else recipe.norm,
        dense=() if kind.probe else recipe.dense,
        dropout=recipe.dropout,
        # over a backbone that stays frozen throughout, features are computed once, which side heads would not allow
        side_heads="none" if kind.probe or 0 < recipe.epochs <= recipe.frozen_epochs else recipe.side_heads,
        symmetries=recipe.symmetries,
        neighbours=(NEIGHBOURS, 0) if kind.probe == "knn" else None,
        backbone_args=recipe.backbone_args,
        mean=recipe.mean or mean,
        std=recipe.std or std,
    )
    model = Classifier(architecture)
    model.unfreeze(recipe.unfreeze)  # a wrong rule is said before any image is read
    return model, load_pretrained(model, recipe.weights)


def _pixels(dataset: Dataset, out: Path, recipe: Recipe, running: Running) -> Pixels:
    paths = [record["path"] for record in dataset.everything]
    file = out / "resume" / f"pixels-{recipe.size}-{dataset.digest()[:16]}.npy"
    limit = None if running.cache_gb is None else int(running.cache_gb * 2**30)
    return Pixels(paths, recipe.size, file, running.jobs, running.quiet, limit)


def _room(device: torch.device) -> int:
    """Bytes of memory that features may take: half of what is free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _samples(dataset: Dataset, failed: dict[int, str]) -> dict[str, Samples]:
    samples, start = {}, 0
    for name, records in dataset.splits.items():
        rows = np.array([start + i for i in range(len(records)) if start + i not in failed], np.int64)
        targets = torch.tensor([dataset.classes.index(records[row - start]["label"]) for row in rows])
        samples[name] = Samples(rows, targets.long())
        start += len(records)
    trained = samples["train"].targets.unique().tolist()
    lost = [name for number, name in enumerate(dataset.classes) if number not in trained]
    if lost:
        raise InputError(
            f"class {', '.join(lost)}: none of its training images can be read; mend them or use --classes"
        )
    return samples


def _on_epoch(out: Path, recipe: Recipe, running: Running, images: int) -> Callable[[State], None]:
    """Says and writes how an epoch went."""
    writer = None
    if running.tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageProblem("--tensorboard needs a further package: pip install 'wbctool[tensorboard]'") from None
        writer = SummaryWriter(str(out / "tensorboard"))

    def told(state: State) -> None:
        row = state.history[-1]
        _write_history(out, state)
        if not running.quiet:
            note(_line(row, recipe.epochs, images))
        if writer:
            for key, value in row.items():
                if isinstance(value, float):
                    writer.add_scalar(key, value, row["epoch"])
            writer.flush()

    return told


def _line(row: dict[str, Any], epochs: int, images: int) -> str:
    text = f"epoch {row['epoch']}/{epochs} {row['phase']}: loss {row['train_loss']:.3f}"
    if "val_loss" in row:
        text += f", validation loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:.3f}"
    return f"{text}, {row['seconds']:.0f} s, {images / max(row['seconds'], 1e-3):.0f} images/s"


def _finish(out: Path, model: Model, about: dict[str, Any], state: State, run: dict[str, Any]) -> None:
    """Write all else that a run folder holds; `model.json` last, as it says that the run is complete."""
    from wbctool.statistics.plots import as_png, learning_curves

    _write_history(out, state)
    if state.history:  # a probe has none
        write_bytes(out / "curves.png", as_png(learning_curves(state.history, state.best_epoch)))
    write_json(out / "run.json", {**run, "epochs": state.epoch, "best_epoch": state.best_epoch, "finished": True})
    run_folder.save(out, model, {**about, "best_epoch": state.best_epoch})
    shutil.rmtree(out / "resume", ignore_errors=True)


def _write_history(out: Path, state: State) -> None:
    with atomic(out / "history.jsonl", "w") as stream:
        stream.writelines(to_line(row) + "\n" for row in state.history)


def _held(
    model: Model,
    device: torch.device,
    dataset: Dataset,
    samples: dict[str, Samples],
    pixels: Pixels,
    precision: str,
    jobs: int,
) -> dict[str, tuple[list[Record], np.ndarray]]:
    """Records of validation and test, and the model's probabilities, (n, classes)."""
    model.eval()
    held = {}
    with Measuring(jobs) as measuring:
        for split in HELD:
            kept, parts = [], [np.zeros((0, len(dataset.classes)))]
            for start in range(0, len(samples[split].rows), BATCH):
                rows = samples[split].rows[start : start + BATCH]
                measures = None
                if model.architecture.measures:
                    found = _measured(model, [dataset.everything[row] for row in rows], measuring)
                    for row, own in zip(rows, found, strict=True):
                        if isinstance(own, str):
                            pixels.failed[int(row)] = own
                            note(f"failed: {own}")
                    rows = np.array([row for row in rows if int(row) not in pixels.failed], np.int64)
                    measures = np.array([own for own in found if not isinstance(own, str)], np.float32)
                if len(rows):
                    parts.append(probabilities(model, pixels.batch(rows).to(device), precision, measures=measures))
                kept += [dataset.everything[row] for row in rows]
            held[split] = (kept, np.concatenate(parts))
    return held


def _measured(model: Model, records: list[Record], measuring: Measuring) -> list[np.ndarray | str]:
    """What cells measure, or why the model refuses them."""
    found = measuring(records)
    if not model.architecture.needs_mask:
        return found
    return [
        unmeasured(record) if not isinstance(own, str) and np.isnan(own).all() else own
        for record, own in zip(records, found, strict=True)
    ]
