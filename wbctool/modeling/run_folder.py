"""The run folder: a trained model that can be read, moved and checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wbctool.errors import InputError, UsageProblem
from wbctool.modeling import classifier, ensembles, fused, kinds  # noqa: F401  (each makes its kind known)
from wbctool.outputs import atomic, read_json, write_bytes, write_json

SCHEMA = "wbctool.model/1"
NEXT = "train it again, or give another run folder"


@dataclass
class Run:
    """A trained model and what it knows of its images."""

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
    checked = {"checksums": {name: digest_of(path, name) for name in ("weights.safetensors", *files)}} if files else {}
    write_json(
        path / "model.json",
        {"schema": SCHEMA, **model.architecture.to_json(), "parameters": parameters, **checked, **info},
    )


def make_model(info: dict[str, Any]) -> kinds.Model:
    """The untrained model that a `model.json` describes.

    Raises:
        KeyError, TypeError, ValueError, WbctoolError: a part is missing, or is nothing that can be built.
    """
    return kinds.build(kinds.read(info))


def is_run(path: Path) -> bool:
    """Whether a path is a finished run folder."""
    return (path / "model.json").is_file() and (path / "weights.safetensors").is_file()


def read_info(path: Path) -> dict[str, Any]:
    """The contents of `model.json`.

    Raises:
        InputError: the folder is no finished run folder.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such run folder; `wbctool train … -o {path}` makes one")
    if not (path / "model.json").exists() and (path / "resume").exists():
        raise InputError(f"{path}: its training has not finished; run the same `wbctool train` again to go on")
    info = read_json(path / "model.json", f"{path} is no run folder; {NEXT}")
    if info.get("schema") != SCHEMA:
        raise InputError(f"{path}/model.json: schema {info.get('schema')!r}, not {SCHEMA}; {NEXT}")
    return info


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
    try:
        model = make_model(info)
        temperature = float(info.get("calibration", {}).get("temperature", 1.0))
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature {temperature}")
    except (KeyError, TypeError, ValueError, AttributeError, UsageProblem) as error:
        raise InputError(f"{path}/model.json: damaged ({error}); {NEXT}") from None
    try:
        model.load_state_dict(load_file(path / "weights.safetensors"))
    except Exception as error:  # safetensors and torch each have their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(f"{path}/weights.safetensors: does not fit model.json ({reason}); {NEXT}") from None
    if model.architecture.trees:
        _load_files(path, model, info)
    model.to(device).to(memory_format=torch.channels_last).eval()
    return Run(path, model, info)


def _load_files(path: Path, model: kinds.Model, info: dict[str, Any]) -> None:
    """Take up what stands beside the weights, where all is what the run was saved with."""
    checksums = info.get("checksums")
    names = ["weights.safetensors", *model.file_names()]
    if not isinstance(checksums, dict) or set(checksums) != set(names):
        raise InputError(f"{path}/model.json: damaged (no checksums); {NEXT}")
    for name in names:
        if digest_of(path, name) != checksums[name]:
            raise InputError(f"{path}/{name}: is not what model.json was written with; {NEXT}")
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
