"""The run folder: a trained model that can be read, moved and checked."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wbctool.errors import InputError, UsageProblem
from wbctool.inputs.run_folders import NEXT, SCHEMA, read_info
from wbctool.modeling import classifier, ensembles, kinds  # noqa: F401  (each makes its kind known)
from wbctool.modeling.fused import BOOSTER
from wbctool.records.storage import atomic, write_bytes, write_json


@dataclass
class Run:
    """A trained model and what it knows of its images.

    Attributes:
        path: its folder.
        model: on the device it was loaded to, in evaluation mode.
        info: what `model.json` says.
    """

    path: Path
    model: kinds.Model
    info: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.architecture.classes

    @property
    def temperature(self) -> float | None:
        """By which its logits are divided; None of runs that have none."""
        return self.info.get("calibration", {}).get("temperature")


def save(path: Path, model: kinds.Model, info: dict[str, Any]) -> None:
    """Write `weights.safetensors`, then `model.json`, which says that the run is complete."""
    from safetensors.torch import save as to_bytes

    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with atomic(path / "weights.safetensors") as stream:
        stream.write(to_bytes(state))
    files = model.files() if model.architecture.trees else {}
    for name, data in files.items():
        write_bytes(path / name, data)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    checksums = {name: digest_of(path, name) for name in ("weights.safetensors", *files)}
    about = {"schema": SCHEMA, **model.architecture.to_json(), "parameters": parameters, "checksums": checksums}
    write_json(path / "model.json", {**about, **info})


def clear(path: Path) -> None:
    """Remove what a run folder holds of an earlier model, that another may be made there."""
    for name in ("model.json", BOOSTER, "importance.json", "importance.png", "tuning.jsonl", "records.jsonl"):
        (path / name).unlink(missing_ok=True)
    (path / "features.npz").unlink(missing_ok=True)
    for name in ("resume", "tensorboard"):
        shutil.rmtree(path / name, ignore_errors=True)


def make_model(info: dict[str, Any]) -> kinds.Model:
    """The untrained model that a `model.json` describes.

    Raises:
        KeyError, TypeError, ValueError, WbctoolError: a part is missing, or is nothing that can be built.
    """
    return kinds.build(kinds.read(info))


def digest_of(path: Path, *names: str) -> str:
    """A digest of some files of a run; of its weights without names.

    Raises:
        InputError: they cannot be read.
    """
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
    """Refuse what only networks can do.

    Raises:
        UsageProblem: the run holds trees.
    """
    if run.model.architecture.trees:
        raise UsageProblem(f"{run.path}: is fused by trees, {what}; give the runs it was made of (`wbctool info`)")


def trained_precision(info: dict[str, Any]) -> str:
    """In which precision a run was trained, `auto` where that is not known."""
    return info.get("training", {}).get("precision", "auto")


def load(path: Path, device: torch.device) -> Run:
    """Load a run folder, ready to predict.

    Raises:
        InputError: the folder is no finished run folder, or its weights do not fit its model.
    """
    from safetensors.torch import load_file

    info = read_info(path)
    _check_weights(path, info)
    try:
        model = make_model(info)
        temperature = float(info.get("calibration", {}).get("temperature", 1.0))
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature {temperature}")
    except Exception as error:  # timm has many
        raise InputError(f"{path}/model.json: damaged ({_reason(error)}); {NEXT}") from None
    _check_files(path, model, info)
    try:
        model.load_state_dict(load_file(path / "weights.safetensors"))
    except Exception as error:  # safetensors and torch each have their own
        raise InputError(f"{path}/weights.safetensors: does not fit model.json ({_reason(error)}); {NEXT}") from None
    if model.architecture.trees:
        _load_files(path, model)
    model.to(device).to(memory_format=torch.channels_last).eval()
    return Run(path, model, info)


def _check_weights(path: Path, info: dict[str, Any]) -> None:
    """Refuse weights of other shapes than the model's before memory is taken for either."""
    from safetensors import safe_open

    wanted: dict[str, list[int]] | None = None
    with suppress(Exception), torch.device("meta"):  # some layers cannot run there; loading finds what is wrong
        wanted = {key: list(value.shape) for key, value in make_model(info).state_dict().items()}
    try:
        with safe_open(path / "weights.safetensors", "pt") as file:
            held = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise InputError(f"{path}/weights.safetensors: cannot be read ({_reason(error)}); {NEXT}") from None
    if wanted is None:
        return
    for key in sorted({*wanted, *held}):
        if wanted.get(key) != held.get(key):
            raise InputError(
                f"{path}/weights.safetensors: does not fit model.json ({key} is {held.get(key, 'missing')}, "
                f"not {wanted.get(key, 'known')}); {NEXT}"
            )


def _check_files(path: Path, model: kinds.Model, info: dict[str, Any]) -> None:
    """Refuse files that are not those the run was saved with; a run of before checksums has none."""
    names = {"weights.safetensors", *(model.file_names() if model.architecture.trees else ())}
    checksums = info.get("checksums", {})
    if set(checksums) != names and (checksums or len(names) > 1):
        raise InputError(f"{path}/model.json: damaged (no checksums); {NEXT}")
    for name in sorted(checksums):
        if digest_of(path, name) != checksums[name]:
            raise InputError(f"{path}/{name}: is not what model.json was written with; {NEXT}")


def _load_files(path: Path, model: kinds.Model) -> None:
    """Take up what stands beside the weights."""
    name = "model.json"

    def read(wanted: str) -> bytes:
        nonlocal name
        name = wanted
        return (path / wanted).read_bytes()

    try:
        model.load_files(read)
    except Exception as error:  # XGBoost has its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:160]
        raise InputError(f"{path}/{name}: cannot be used ({reason}); {NEXT}") from None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
