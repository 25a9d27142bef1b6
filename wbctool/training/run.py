"""From a dataset to a run folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbctool import __version__
from wbctool.console import note
from wbctool.device import pick_device, pick_precision
from wbctool.errors import InputError, UsageProblem
from wbctool.modeling import run_folder
from wbctool.modeling.architecture import (
    ATTENTIONS,
    Architecture,
    Classifier,
    default_normalisation,
    load_pretrained,
)
from wbctool.modeling.inference import prediction_record, probabilities
from wbctool.outputs import atomic, check_settings, read_json, write_json
from wbctool.records import Record, to_line, with_relative_paths
from wbctool.training.dataset import Dataset
from wbctool.training.feed import Pixels
from wbctool.training.loop import EVALUATION_BATCH, Samples, State, Trainer
from wbctool.training.options import TrainOptions


def train(
    dataset: Dataset,
    out: Path,
    options: TrainOptions,
    device_name: str = "auto",
    jobs: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
    shown_out: str | None = None,
) -> dict[str, Any]:
    """Train a classifier into a run folder, or take up or skip what an earlier call did.

    Args:
        dataset: what to train on.
        out: the run folder.
        options: the choices.
        device_name: `auto`, `cpu` or `cuda`.
        jobs: threads that decode, 0 for one per core.
        overwrite: start anew.
        quiet: nothing on stderr.
        shown_out: the run's name in its predictions.

    Returns:
        What `run.json` says: counts, epochs, best epoch, whether it was done before.

    Raises:
        UsageProblem, InputError, DeviceError: as the names say, with the next step.
    """
    if options.attention not in ATTENTIONS:
        raise UsageProblem(f"--attention {options.attention}: choose from {', '.join(ATTENTIONS)}")
    device = pick_device(device_name)
    options = replace(options, precision=pick_precision(options.precision, device))
    run = {
        "command": "train",
        "version": __version__,
        "settings": {**options.to_json(), "device": device.type, "images": dataset.digest()},
    }
    if overwrite:
        for stale in ("model.json", "resume"):
            path = out / stale
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    else:
        check_settings(out, "run.json", run)
    if (out / "model.json").exists():
        return {**run, "failures": read_json(out / "run.json", "train again").get("failures", []), "done_before": True}
    torch.manual_seed(options.seed)
    model = Classifier(_architecture(dataset, options))
    loaded = load_pretrained(model, options.weights)
    if not quiet:
        note(f"{options.backbone}, {loaded}; {device.type}, {options.precision}")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "run.json", {**run, "finished": False})
    model.to(device, memory_format=torch.channels_last)
    paths = [record["path"] for record in dataset.everything]
    file = out / "resume" / f"pixels-{dataset.digest()[:16]}.npy"
    pixels = Pixels(paths, options.size, file, jobs, quiet)
    samples = _samples(dataset, pixels.failed)
    for reason in pixels.failed.values():
        note(f"failed: {reason}")
    trainer = Trainer(model, pixels, samples["train"], samples["val"], options, out)
    done = trainer.resume()
    if done and not quiet:
        note(f"going on after epoch {done}")
    state = trainer.run(lambda row: None if quiet else note(_epoch_line(row, options.epochs)))
    _write_predictions(out, model, dataset, samples, pixels, options, shown_out or str(out))
    _write_history(out, state)
    counts = {name: len(own.rows) for name, own in samples.items()}
    run |= {
        "counts": counts,
        "failures": sorted(pixels.failed.values()),
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "weights": loaded,
    }
    run_folder.save(
        out,
        model,
        {"training": options.to_json(), "best_epoch": state.best_epoch, "preparation": dataset.preparation},
    )
    write_json(out / "run.json", {**run, "finished": True})
    shutil.rmtree(out / "resume", ignore_errors=True)
    return {**run, "done_before": False}


def _architecture(dataset: Dataset, options: TrainOptions) -> Architecture:
    mean, std = default_normalisation(options.backbone)
    return Architecture(
        backbone=options.backbone,
        classes=dataset.classes,
        size=options.size,
        attention=options.attention,
        dropout=options.dropout,
        backbone_args=options.backbone_args,
        mean=options.mean or mean,
        std=options.std or std,
    )


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


def _write_predictions(
    out: Path,
    model: Classifier,
    dataset: Dataset,
    samples: dict[str, Samples],
    pixels: Pixels,
    options: TrainOptions,
    name: str,
) -> None:
    model.eval()
    device = next(model.parameters()).device
    with atomic(out / "predictions.jsonl", "w") as stream:
        for split in ("val", "test"):
            for start in range(0, len(samples[split].rows), EVALUATION_BATCH):
                rows = samples[split].rows[start : start + EVALUATION_BATCH]
                scores = probabilities(model, pixels.batch(rows).to(device), options.precision)
                for index, row in zip(rows, scores, strict=True):
                    made = prediction_record(dataset.everything[index], name, dataset.classes, row)
                    stream.write(to_line(with_relative_paths(made, out.resolve())) + "\n")


def _write_history(out: Path, state: State) -> None:
    from wbctool.training.curves import draw_curves

    with atomic(out / "history.jsonl", "w") as stream:
        stream.writelines(to_line(row) + "\n" for row in state.history)
    draw_curves(state.history, state.best_epoch, out / "curves.png")


def _epoch_line(row: Record, epochs: int) -> str:
    text = f"epoch {row['epoch']}/{epochs} {row['phase']}: loss {row['train_loss']:.3f}"
    if "val_loss" in row:
        text += f", validation loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:.3f}"
    return f"{text}, {row['seconds']:.0f} s"
