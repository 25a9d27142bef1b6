"""One training, from a dataset to a run folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbctool import __version__
from wbctool.console import note
from wbctool.device import pick_device, pick_precision
from wbctool.errors import InputError, UsageProblem
from wbctool.inputs.dataset import Dataset
from wbctool.modeling import run_folder
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.ensembles import AverageEnsemble, CbamEnsemble
from wbctool.modeling.fused import BOOSTER
from wbctool.modeling.holdout import write_dataset, write_predictions
from wbctool.modeling.model_types import Model
from wbctool.pipeline.locks import locked
from wbctool.pipeline.output_folder import check_settings
from wbctool.records import to_line
from wbctool.records.storage import atomic, read_json, write_bytes, write_json
from wbctool.training.feed import DataFeed, Samples
from wbctool.training.holdout import predict_holdout
from wbctool.training.images import ImageStore
from wbctool.training.loop import Trainer
from wbctool.training.losses import Objective, make_objective
from wbctool.training.probe import fit_probe
from wbctool.training.processes import Processes
from wbctool.training.recipe import Recipe, TrainingOptions, TrainingPlan
from wbctool.training.start import start_model
from wbctool.training.state import TrainingState


@dataclass
class Training:
    """One training of a classifier into a run folder.

    Attributes:
        dataset: what to train on.
        out: the run folder.
        recipe: what is chosen.
        plan: whether it is a probe or an ensemble.
        members: run folders of an ensemble.
        options: the means.
        processes: among which the work is divided.

    Raises:
        UsageProblem: the batch is too small for the processes, or device or precision are unknown.
        DeviceError: there is no such GPU.
    """

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
        """Train, or resume or skip what an earlier call did.

        Returns:
            What `run.json` keeps, with `failures`, and `done_before`.

        Raises:
            UsageProblem, InputError, DeviceError: with the next step in the message.
        """
        with locked(self.out) if self.processes.is_main else nullcontext():
            if self.processes.is_main:
                self._open()
            self.processes.wait()
            if not (self.out / "model.json").exists():
                return self._train()
            if self.processes.is_main:
                shutil.rmtree(self.out / "resume", ignore_errors=True)  # of a call killed after its last step
            failures = read_json(self.out / "run.json", "train again").get("failures", [])
            return {**self.info, "failures": failures, "done_before": True}

    def _settings(self) -> dict[str, Any]:
        digests = [_digest_of(member) for member in self.members]
        plan = {"probe": self.plan.probe, "ensemble": self.plan.ensemble, "members": digests}
        return {
            **self.recipe.model_dump(),
            **{key: value for key, value in plan.items() if value},
            "device": self.device.type,
            "images": self.dataset.digest(),
        }

    def _train(self) -> dict[str, Any]:
        torch.manual_seed(self.recipe.seed)
        model, origin = start_model(self.dataset.classes, self.recipe, self.plan, self.members, self.device)
        if not self.quiet:
            note(f"{model.architecture.backbone}, {origin}; {self.device.type}, {self.recipe.precision}")
        model.to(self.device).to(memory_format=torch.channels_last)
        objective = make_objective(self.recipe, self.dataset.classes, self._class_counts())
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

    def _open(self) -> None:
        if self.options.overwrite:
            run_folder.clear(self.out)
        else:
            check_settings(self.out, "run.json", self.info)

    def _class_counts(self) -> torch.Tensor:
        index = {name: number for number, name in enumerate(self.dataset.classes)}
        return torch.bincount(torch.tensor([index[record["label"]] for record in self.dataset.splits["train"]]))

    def _decode(self) -> ImageStore:
        """The decoded images; the main process decodes them for all."""
        paths = [record["path"] for record in self.dataset.everything]
        file = self.out / "resume" / f"pixels-{self.recipe.size}-{self.dataset.digest()[:16]}.npy"
        limit = None if self.options.cache_gb is None else int(self.options.cache_gb * 2**30)
        if self.processes.is_main:
            write_json(self.out / "run.json", {**self.info, "finished": False})
            images = ImageStore(paths, self.recipe.size, file, self.options.jobs, self.quiet, limit)
        self.processes.wait()
        if not self.processes.is_main:
            images = ImageStore(paths, self.recipe.size, file, self.options.jobs, self.quiet, limit)
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
        count, tensorboard = len(train.rows), self.options.tensorboard
        return trainer.run(_EpochLog(self.out, self.recipe.epochs, count, tensorboard, self.quiet))

    def _finish(self, model: Model, images: ImageStore, samples: dict[str, Samples], state: TrainingState) -> None:
        """Write the run folder; `model.json` last, as it marks the run as complete."""
        from wbctool.statistics.plots import as_png, learning_curves

        out, dataset = self.out, self.dataset
        write_dataset(out, dataset)
        holdout = predict_holdout(model, images, dataset, samples, self.recipe.precision, self.options.jobs)
        calibration = write_predictions(out, str(out), dataset.classes, holdout)
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


def _digest_of(member: Path) -> str:
    """A digest of the weights, and of the trees of a fused run."""
    trees = [BOOSTER] if (member / BOOSTER).is_file() else []
    return run_folder.digest_of(member, "weights.safetensors", *trees)


def _samples(dataset: Dataset, failed: dict[int, str]) -> dict[str, Samples]:
    """The readable images of each split.

    Raises:
        InputError: a class has no training image left.
    """
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


class _EpochLog:
    """Writes the history after each epoch of so many images, and shows the epoch on stderr."""

    def __init__(self, out: Path, epochs: int, images: int, tensorboard: bool, quiet: bool) -> None:
        self._out, self._epochs, self._images, self._quiet = out, epochs, images, quiet
        self._writer = _event_writer(out) if tensorboard else None

    def __call__(self, state: TrainingState) -> None:
        row = state.history[-1]
        _write_history(self._out, state)
        if not self._quiet:
            note(self._line(row))
        if self._writer:
            for key, value in row.items():
                if isinstance(value, float):
                    self._writer.add_scalar(key, value, row["epoch"])
            self._writer.flush()

    def _line(self, row: dict[str, Any]) -> str:
        text = f"epoch {row['epoch']}/{self._epochs} {row['phase']}: loss {row['train_loss']:.3f}"
        if "val_loss" in row:
            text += f", validation loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:.3f}"
        return f"{text}, {row['seconds']:.0f} s, {self._images / max(row['seconds'], 1e-3):.0f} images/s"


def _event_writer(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageProblem("--tensorboard needs a further package: pip install 'wbctool[tensorboard]'") from None
    return SummaryWriter(str(out / "tensorboard"))
