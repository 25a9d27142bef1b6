"""One training, from a dataset and the model it starts from to a run folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
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
from wbctool.modeling.architecture import Architecture, EnsembleMethod
from wbctool.modeling.classifier import Classifier, default_normalisation
from wbctool.modeling.ensembles import AverageEnsemble, CbamEnsemble, EnsembleArchitecture, make_ensemble
from wbctool.modeling.fused import BOOSTER, FusedModel
from wbctool.modeling.model_types import Model
from wbctool.modeling.predictor import BATCH, missing_measures, probabilities
from wbctool.modeling.run_folder import HOLDOUT, Run
from wbctool.modeling.weights import load_pretrained
from wbctool.pipeline.locks import locked
from wbctool.pipeline.output_folder import check_settings
from wbctool.records import Record, to_line
from wbctool.records.storage import atomic, read_json, write_bytes, write_json
from wbctool.training.feed import DataFeed, Samples
from wbctool.training.images import ImageStore
from wbctool.training.loop import Trainer, TrainingState
from wbctool.training.losses import Objective, make_objective
from wbctool.training.probe import NEIGHBOURS, fit_probe
from wbctool.training.processes import Processes
from wbctool.training.recipe import Recipe, TrainingOptions, TrainingPlan


@dataclass
class Training:
    """One training of a classifier into a run folder; an ensemble has run folders as members."""

    dataset: Dataset
    out: Path
    recipe: Recipe
    plan: TrainingPlan
    members: Sequence[Path]
    options: TrainingOptions
    processes: Processes

    def __post_init__(self) -> None:
        recipe, count = self.recipe, self.processes.count
        if recipe.batch_size < 4 * count:
            raise UsageProblem(
                f"--batch-size {recipe.batch_size} is divided among {count} processes: give {4 * count} or more"
            )
        self.device = self.processes.device or pick_device(self.options.device)
        self.recipe = recipe.replaced(precision=pick_precision(recipe.precision, self.device))
        if self.plan.ensemble:
            self.recipe = self.recipe.replaced(frozen_epochs=recipe.epochs)
        self.quiet = self.options.quiet
        self.info: dict[str, Any] = {"command": "train", "version": __version__, "settings": self._settings()}

    def run(self) -> dict[str, Any]:
        """Train, or resume or skip an earlier call's work; return what `run.json` keeps, `failures`, `done_before`."""
        with locked(self.out) if self.processes.is_main else nullcontext():
            if self.processes.is_main and self.options.overwrite:
                run_folder.clear(self.out)
            elif self.processes.is_main:
                check_settings(self.out, "run.json", self.info)
            self.processes.wait()
            if not (self.out / "model.json").exists():
                return self._train()
            if self.processes.is_main:
                shutil.rmtree(self.out / "resume", ignore_errors=True)  # of a call killed after its last step
            failures = read_json(self.out / "run.json", "train again").get("failures", [])
            return {**self.info, "failures": failures, "done_before": True}

    def _settings(self) -> dict[str, Any]:
        digests = []
        for member in self.members:
            trees = [BOOSTER] if (member / BOOSTER).is_file() else []
            digests.append(run_folder.digest_of(member, "weights.safetensors", *trees))
        plan = {"probe": self.plan.probe, "ensemble": self.plan.ensemble, "members": digests}
        return {
            **self.recipe.model_dump(),
            **{key: value for key, value in plan.items() if value},
            "device": self.device.type,
            "images": self.dataset.digest(),
        }

    def _train(self) -> dict[str, Any]:
        torch.manual_seed(self.recipe.seed)
        classes = self.dataset.classes
        model, origin = start_model(classes, self.recipe, self.plan, self.members, self.device)
        if not self.quiet:
            note(f"{model.architecture.backbone}, {origin}; {self.device.type}, {self.recipe.precision}")
        model.to(self.device).to(memory_format=torch.channels_last)
        labels = [classes.index(record["label"]) for record in self.dataset.splits["train"]]
        objective = make_objective(self.recipe, classes, torch.bincount(torch.tensor(labels)))
        images = self._decode()
        samples = _samples(self.dataset, images.failed)
        if self.processes.is_main:
            for reason in images.failed.values():
                note(f"failed: {reason}")
        state = self._fit(model, objective, images, samples)
        if self.processes.is_main:
            self.info["weights"] = origin
            self._finish(model, images, samples, state)
        self.processes.wait()
        return {**self.info, "failures": sorted(images.failed.values()), "done_before": False}

    def _decode(self) -> ImageStore:
        """The decoded images; the main process decodes them for all, while the others wait."""
        paths = [record["path"] for record in self.dataset.everything]
        file = self.out / "resume" / f"pixels-{self.recipe.size}-{self.dataset.digest()[:16]}.npy"
        limit = None if self.options.cache_gb is None else int(self.options.cache_gb * 2**30)
        if self.processes.is_main:
            write_json(self.out / "run.json", {**self.info, "finished": False})
        else:
            self.processes.wait()
        images = ImageStore(paths, self.recipe.size, file, self.options.jobs, self.quiet, limit)
        if self.processes.is_main:
            self.processes.wait()
        return images

    def _fit(
        self,
        model: Classifier | AverageEnsemble | CbamEnsemble,
        objective: Objective,
        images: ImageStore,
        samples: dict[str, Samples],
    ) -> TrainingState:
        """Fit what learns: a probe's head, or a network in phases; nothing of an average."""
        train, val = samples["train"], samples["val"]
        if isinstance(model, AverageEnsemble):
            return TrainingState()
        if self.plan.probe and isinstance(model, Classifier):
            self.info["strength"] = fit_probe(model, images, train, val, self.recipe, self.quiet)
            return TrainingState()
        feed = DataFeed(images, train, val, self.recipe, self.processes, self.device, self.quiet)
        trainer = Trainer(model, feed, objective, self.out, self.quiet, self.options.compile)
        done = trainer.resume()
        if done and not self.quiet:
            note(f"going on after epoch {done}")
        if not self.processes.is_main:
            return trainer.run(lambda state: None)
        writer = _event_writer(self.out) if self.options.tensorboard else None
        return trainer.run(partial(self._log_epoch, len(train.rows), writer))

    def _log_epoch(self, images: int, writer: Any, state: TrainingState) -> None:
        """Write the history after an epoch of so many images, and show the epoch on stderr."""
        row = state.history[-1]
        _write_history(self.out, state)
        if not self.quiet:
            text = f"epoch {row['epoch']}/{self.recipe.epochs} {row['phase']}: loss {row['train_loss']:.3f}"
            if "val_loss" in row:
                text += f", validation loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:.3f}"
            note(f"{text}, {row['seconds']:.0f} s, {images / max(row['seconds'], 1e-3):.0f} images/s")
        if writer:
            for key, value in row.items():
                if isinstance(value, float):
                    writer.add_scalar(key, value, row["epoch"])
            writer.flush()

    def _finish(self, model: Model, images: ImageStore, samples: dict[str, Samples], state: TrainingState) -> None:
        """Write the run folder; `model.json` last, as it marks the run as complete."""
        from wbctool.statistics.plots import as_png, learning_curves

        out, dataset = self.out, self.dataset
        run_folder.write_dataset(out, dataset)
        holdout = predict_holdout(model, images, dataset, samples, self.recipe.precision, self.options.jobs)
        calibration = run_folder.write_predictions(out, str(out), dataset.classes, holdout)
        self.info["counts"] = {split: len(split_samples.rows) for split, split_samples in samples.items()}
        self.info["failures"] = sorted(images.failed.values())
        _write_history(out, state)
        if state.history:  # a probe has none
            write_bytes(out / "curves.png", as_png(learning_curves(state.history, state.best_epoch)))
        epochs = {"epochs": state.epoch, "best_epoch": state.best_epoch}
        write_json(out / "run.json", {**self.info, **epochs, "finished": True})
        info = {"training": self.recipe.model_dump(), "preparation": dataset.preparation, "calibration": calibration}
        run_folder.save(out, model, {**info, "best_epoch": state.best_epoch})
        shutil.rmtree(out / "resume", ignore_errors=True)


def start_model(
    class_names: tuple[str, ...], recipe: Recipe, plan: TrainingPlan, members: Sequence[Path], device: torch.device
) -> tuple[Classifier | AverageEnsemble | CbamEnsemble, str]:
    """Return the model that a training starts from, and its origin in words; members of an ensemble are run folders."""
    if plan.ensemble:
        runs = [run_folder.load(path, device) for path in members]
        return _start_ensemble(plan.ensemble, runs, class_names, recipe), f"weights of {len(runs)} runs"
    mean, std = default_normalisation(recipe.backbone)
    values = recipe.model_dump(include={field.name for field in fields(Architecture)})
    values |= {"classes": class_names, "mean": recipe.mean or mean, "std": recipe.std or std}
    if plan.probe:
        values |= {"norm": "none", "dense": (), "neighbours": (NEIGHBOURS, 0) if plan.probe == "knn" else None}
    # over a backbone that stays frozen throughout, features are computed once, which side heads would not allow
    if plan.probe or 0 < recipe.epochs <= recipe.frozen_epochs:
        values["side_heads"] = "none"
    model = Classifier(Architecture(**values))
    model.unfreeze(recipe.unfreeze)  # reports an invalid rule before any image is read
    return model, load_pretrained(model, recipe.weights)


def _start_ensemble(
    method: EnsembleMethod, members: Sequence[Run], class_names: tuple[str, ...], recipe: Recipe
) -> AverageEnsemble | CbamEnsemble:
    for member in members:
        if isinstance(member.model, FusedModel) and method != "average":
            raise InputError(f"{member.path}: is fused by trees, which have no feature maps; use --ensemble average")
        if not isinstance(member.model, Classifier | FusedModel):
            raise InputError(f"{member.path}: is an ensemble itself; give its members")
        if member.classes != class_names:
            raise InputError(
                f"{member.path}: knows {', '.join(member.classes)}; "
                f"the images to train on are {', '.join(class_names)}; they must be the same classes"
            )
    architectures = tuple(member.model.architecture for member in members)
    size = max(architecture.size for architecture in architectures)
    head = recipe.model_dump(include={"dense", "norm", "dropout", "symmetries"})
    ensemble = make_ensemble(EnsembleArchitecture(method, architectures, class_names, size, **head))
    for copy, member in zip(ensemble.members, members, strict=True):
        copy.load_state_dict(member.model.state_dict())
        if isinstance(copy, FusedModel):
            copy.load_files(member.model.files().__getitem__)
    return ensemble


def _samples(dataset: Dataset, failed: dict[int, str]) -> dict[str, Samples]:
    """The readable images of each split; InputError where a class has no training image left."""
    samples, start = {}, 0
    for name, records in dataset.splits.items():
        rows = np.array([start + i for i in range(len(records)) if start + i not in failed], np.int64)
        targets = torch.tensor([dataset.classes.index(records[row - start]["label"]) for row in rows])
        samples[name] = Samples(rows, targets.long())
        start += len(records)
    trained = samples["train"].targets.unique().tolist()
    lost = [name for number, name in enumerate(dataset.classes) if number not in trained]
    if lost:
        raise InputError(f"class {', '.join(lost)}: none of its training images can be read; fix them or use --classes")
    return samples


def _write_history(out: Path, state: TrainingState) -> None:
    with atomic(out / "history.jsonl", "w") as stream:
        stream.writelines(to_line(row) + "\n" for row in state.history)


def _event_writer(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageProblem("--tensorboard needs a further package: pip install 'wbctool[tensorboard]'") from None
    return SummaryWriter(str(out / "tensorboard"))


def predict_holdout(
    model: Model, images: ImageStore, dataset: Dataset, samples: dict[str, Samples], precision: str, jobs: int
) -> dict[str, tuple[list[Record], np.ndarray]]:
    """Return the records of validation and test, and the model's probabilities of them, (n, classes).

    Images whose cells cannot be measured, where the model needs that, are added to `images.failed`.
    """
    model.eval()
    device = next(model.parameters()).device
    predictions = {}
    with Measuring(jobs) as measuring:
        for split in HOLDOUT:
            records: list[Record] = []
            chunks = [np.zeros((0, len(dataset.classes)))]
            for start in range(0, len(samples[split].rows), BATCH):
                rows = samples[split].rows[start : start + BATCH]
                measures = None
                if model.architecture.measures:
                    rows, measures = _measure(model, rows, dataset, images, measuring)
                if len(rows):
                    batch = images.batch(rows).to(device)
                    chunks.append(probabilities(model, batch, precision, measures=measures))
                records += [dataset.everything[row] for row in rows]
            predictions[split] = (records, np.concatenate(chunks))
    return predictions


def _measure(
    model: Model, rows: np.ndarray, dataset: Dataset, images: ImageStore, measuring: Measuring
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that could be measured, and their measures."""
    kept, measures = [], []
    records = [dataset.everything[row] for row in rows]
    for row, record, result in zip(rows, records, measuring(records), strict=True):
        if model.architecture.needs_mask and not isinstance(result, str) and np.isnan(result).all():
            result = missing_measures(record)
        if isinstance(result, str):
            images.failed[int(row)] = result
            note(f"failed: {result}")
        else:
            kept.append(row)
            measures.append(result)
    return np.array(kept, np.int64), np.array(measures, np.float32)
