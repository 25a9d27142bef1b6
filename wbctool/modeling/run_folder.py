"""The run folder: a trained model that can be read, moved and checked."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from wbctool.errors import InputError, UsageProblem
from wbctool.inputs.dataset import Dataset
from wbctool.inputs.run_folders import NEXT, SCHEMA, read_info
from wbctool.modeling.fused import BOOSTER
from wbctool.modeling.model_types import Model, build, read_architecture
from wbctool.modeling.predictor import prediction_record
from wbctool.records import Record, to_line, with_relative_paths
from wbctool.records.storage import atomic, write_bytes, write_json
from wbctool.statistics.calibration import fit_temperature, scaled

HOLDOUT = ("val", "test")


@dataclass
class Run:
    """A trained model, loaded to a device in evaluation mode, and the contents of its `model.json`."""

    path: Path
    model: Model
    info: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.architecture.classes

    @property
    def temperature(self) -> float | None:
        """What the logits are divided by; None where the run is not calibrated."""
        return self.info.get("calibration", {}).get("temperature")


def save(path: Path, model: Model, info: dict[str, Any]) -> None:
    """Write `weights.safetensors` and other files, then `model.json`, which marks the run as complete."""
    from safetensors.torch import save as to_bytes

    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with atomic(path / "weights.safetensors") as stream:
        stream.write(to_bytes(state))
    files = model.files()
    for name, data in files.items():
        write_bytes(path / name, data)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    checksums = {name: digest_of(path, name) for name in ("weights.safetensors", *files)}
    about = {"schema": SCHEMA, **model.architecture.to_json(), "parameters": parameters, "checksums": checksums}
    write_json(path / "model.json", {**about, **info})


def clear(path: Path) -> None:
    """Remove the files of an earlier model from a run folder, so that another can be made there."""
    for name in ("model.json", BOOSTER, "importance.json", "importance.png", "tuning.jsonl", "records.jsonl"):
        (path / name).unlink(missing_ok=True)
    (path / "features.npz").unlink(missing_ok=True)
    for name in ("resume", "tensorboard"):
        shutil.rmtree(path / name, ignore_errors=True)


def digest_of(path: Path, *names: str) -> str:
    """Return a digest of some files of a run; without names, of its weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name in names or ("weights.safetensors",):
        try:
            with open(path / name, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{path}/{name}: {error.strerror or error}; {NEXT}") from None
    return digest.hexdigest()


def refuse_trees(run: Run, what: str) -> None:
    """Refuse a run that holds trees, where only networks will do; `what` completes the message."""
    if run.model.architecture.trees:
        raise UsageProblem(f"{run.path}: is fused by trees, {what}; give the runs it was made of (`wbctool info`)")


def trained_precision(info: dict[str, Any]) -> str:
    """Return the precision that a run was trained in; `auto` where that is unknown."""
    return info.get("training", {}).get("precision", "auto")


def load(path: Path, device: torch.device) -> Run:
    """Load a run folder, ready to predict; `InputError` if it is no run folder or its files do not match."""
    from safetensors.torch import load_file

    info = read_info(path)
    _check_weights(path, info)
    try:
        model = build(read_architecture(info))
        temperature = float(info.get("calibration", {}).get("temperature", 1.0))
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature {temperature}")
    except Exception as error:  # timm has many
        raise InputError(f"{path}/model.json: damaged ({_reason(error)}); {NEXT}") from None
    checksums = info.get("checksums", {})
    if checksums or model.architecture.trees:  # early versions saved none, and knew no trees
        _verify(path, "weights.safetensors", checksums)
    try:
        model.load_state_dict(load_file(path / "weights.safetensors"))
    except Exception as error:  # safetensors and torch each have their own
        raise InputError(f"{path}/weights.safetensors: does not fit model.json ({_reason(error)}); {NEXT}") from None
    _load_files(path, model, checksums)
    model.to(device).to(memory_format=torch.channels_last).eval()
    return Run(path, model, info)


def _check_weights(path: Path, info: dict[str, Any]) -> None:
    """Refuse weights whose shapes are not the model's, before memory is allocated for either."""
    from safetensors import safe_open

    expected: dict[str, list[int]] | None = None
    with suppress(Exception), torch.device("meta"):  # some layers cannot run there; then loading finds the fault
        expected = {key: list(value.shape) for key, value in build(read_architecture(info)).state_dict().items()}
    try:
        with safe_open(path / "weights.safetensors", "pt") as file:
            shapes = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise InputError(f"{path}/weights.safetensors: cannot be read ({_reason(error)}); {NEXT}") from None
    if expected is None:
        return
    for key in sorted({*expected, *shapes}):
        if expected.get(key) != shapes.get(key):
            raise InputError(
                f"{path}/weights.safetensors: does not fit model.json ({key} is {shapes.get(key, 'missing')}, "
                f"not {expected.get(key, 'known')}); {NEXT}"
            )


def _verify(path: Path, name: str, checksums: dict[str, str]) -> None:
    """Refuse a file that is not the one the run was saved with."""
    if name not in checksums:
        raise InputError(f"{path}/model.json: damaged (no checksums); {NEXT}")
    if digest_of(path, name) != checksums[name]:
        raise InputError(f"{path}/{name}: is not what model.json was written with; {NEXT}")


def _load_files(path: Path, model: Model, checksums: dict[str, str]) -> None:
    """Load the files beside the weights."""
    name = "model.json"

    def read(file_name: str) -> bytes:
        nonlocal name
        name = file_name
        _verify(path, name, checksums)
        return (path / name).read_bytes()

    try:
        model.load_files(read)
    except InputError:
        raise
    except Exception as error:  # XGBoost has its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:160]
        raise InputError(f"{path}/{name}: cannot be used ({reason}); {NEXT}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def write_dataset(out: Path, dataset: Dataset) -> None:
    """Write `dataset.jsonl`: the images of training, validation and test, so that leakage can be checked later."""
    with atomic(out / "dataset.jsonl", "w") as stream:
        for record in dataset.everything:
            stream.write(to_line(with_relative_paths(record, out.resolve())) + "\n")


def write_predictions(
    out: Path, name: str, classes: Sequence[str], holdout: Mapping[str, tuple[Sequence[Record], np.ndarray]]
) -> dict[str, Any]:
    """Write predictions of validation and test images, at the temperature fitted on validation.

    `holdout` has the records of each split of `HOLDOUT` and their probabilities, (n, classes). Returns what
    `model.json` keeps of the calibration.
    """
    records, probabilities = holdout["val"]
    truth = np.array([classes.index(record["label"]) for record in records], np.int64)
    temperature = fit_temperature(truth, probabilities)
    with atomic(out / "predictions.jsonl", "w") as stream:
        for records, probabilities in holdout.values():
            rows = scaled(probabilities, temperature) if len(records) else probabilities
            for record, row in zip(records, rows, strict=True):
                prediction = prediction_record(record, name, classes, row, temperature=temperature)
                stream.write(to_line(with_relative_paths(prediction, out.resolve())) + "\n")
    return {"method": "temperature", "temperature": temperature, "images": len(truth)}
