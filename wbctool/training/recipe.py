"""Recipes: everything that can be chosen in a training, its limits, and its default, once.

A recipe is a flat table; its keys are the flags of `wbctool train`. A TOML file gives some of them, may
hold variants, and is read over the defaults; flags go over it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from wbctool.errors import InputError, UsageProblem

CUSTOM_CNN = "custom-cnn"  # the one backbone that is not timm's
MODEL, LOSS, FIT, AUGMENT = "Model", "Loss", "Training", "Augmentation"


def _key(default: Any, help: str, panel: str, low: float = 0, high: float = 1e9, **more: Any) -> Any:
    about = {"help": help, "panel": panel, "low": low, "high": high, "flag": True, **more}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=about)
    return field(default=default, metadata=about)


def _one_of(names: str, default: str, help: str, panel: str, **more: Any) -> Any:
    return _key(default, help, panel, choices=tuple(names.split("|")), **more)


@dataclass(frozen=True)
class Recipe:
    """Choices of one training. `epochs` is the total, of which `frozen_epochs` come first."""

    backbone: str = _key("efficientnet_b0", "Any timm model, or custom-cnn.", MODEL, form="NAME")
    backbone_args: dict[str, Any] = _key({}, "Passed to timm.", MODEL, flag=False)
    weights: str = _key("imagenet", "Where the backbone starts.", MODEL, form="imagenet|none|FILE")
    attention: str = _one_of("none|cbam", "none", "Of a convolutional backbone.", MODEL)
    attention_at: str = _one_of("head|stages|blocks", "head", "After it, each stage, each block.", MODEL)
    size: int = _key(224, "Side of the input, pixels.", MODEL, 16, 2048)
    pool: str = _one_of("backbone|avg|max|avgmax", "backbone", "Of the feature map.", MODEL, flag=False)
    norm: str = _one_of("none|batch|layer", "none", "Of the pooled vector.", MODEL)
    dense: tuple[int, ...] = _key((), "Widths of hidden layers.", MODEL, form="N,N")
    dropout: float = _key(0.2, "Before each layer of the head.", MODEL, 0, 0.95)
    side_heads: str = _one_of("none|covariance", "none", "Half-way, besides.", MODEL)
    mean: tuple[float, ...] | None = _key(None, "Of the input, 0 to 1.", MODEL, form="M[,M,M]")
    std: tuple[float, ...] | None = _key(None, "Of the input, 0 to 1.", MODEL, form="S[,S,S]")
    symmetries: int = _key(1, "Of the square, predicted over.", MODEL, choices=(1, 8))

    loss: str = _one_of("ce|focal|ce-then-focal", "ce", "The loss.", LOSS)
    gamma: float = _key(2.0, "Focusing of the focal loss.", LOSS, 0, 100)
    alpha: str = _key("", "Factor of focal loss.", LOSS, form="X|A=X,B=X")
    ce_epochs: int = _key(5, "Of ce-then-focal, the first.", LOSS)
    label_smoothing: float = _key(0.0, "Share of labels spread over all.", LOSS, 0, 0.99)
    class_weights: str = _one_of("none|balanced|effective", "none", "Weights in the loss.", LOSS)
    beta: float = _key(0.999, "Of effective class weights.", LOSS, 0, 0.999999, flag=False)
    sampling: str = _one_of("shuffled|balanced", "shuffled", "How an epoch is drawn.", LOSS)

    epochs: int = _key(20, "In all; 0 saves it untrained.", FIT)
    frozen_epochs: int = _key(1, "Of these, backbone frozen.", FIT)
    frozen_views: int = _key(1, "Views of each image then; 0: new ones each epoch.", FIT, flag=False)
    unfreeze: str = _key("all", "What learns after.", FIT, form="all|last:N|last:N%|stages:N")
    batch_statistics: str = _one_of("learn|keep", "learn", "Of the backbone's normalisations.", FIT, flag=False)
    batch_size: int = _key(32, "Images a step, over all devices.", FIT, 2)
    optimizer: str = _one_of("adamw|adam", "adamw", "After the frozen phase.", FIT)
    lr: float = _key(1e-3, "Peak rate after it.", FIT)
    lr_depth: float = _key(1.0, "The first layer's rate, as a share of the head's.", FIT, 1e-6, 1, flag=False)
    schedule: str = _one_of("one-cycle|cosine|plateau|constant", "one-cycle", "Of the rate.", FIT)
    weight_decay: float = _key(0.01, "After the frozen phase.", FIT)
    frozen_optimizer: str = _one_of("adamw|adam", "adamw", "While frozen.", FIT, flag=False)
    frozen_lr: float = _key(3e-3, "Peak rate while frozen.", FIT)
    frozen_schedule: str = _one_of("one-cycle|cosine|plateau|constant", "one-cycle", "While frozen.", FIT, flag=False)
    frozen_weight_decay: float = _key(0.01, "While frozen.", FIT, flag=False)
    lr_floor: float = _key(1e-6, "Under which cosine and plateau do not go.", FIT, flag=False)
    plateau_patience: int = _key(3, "Epochs without gain till the rate falls.", FIT, flag=False)
    plateau_factor: float = _key(0.5, "By which it falls.", FIT, 1e-6, 0.999, flag=False)
    patience: int = _key(10, "Epochs without gain; 0: never ends.", FIT)
    best_by: str = _one_of("balanced_accuracy|loss|last", "balanced_accuracy", "The epoch kept.", FIT, flag=False)
    ema: float = _key(0.0, "Decay of averaged weights.", FIT, 0, 0.999999)
    clip: float = _key(0.0, "Largest norm of the gradient; 0: any.", FIT, flag=False)
    precision: str = _one_of("auto|float32|bf16", "auto", "Of the network.", FIT)
    seed: int = _key(0, "Of all chance.", FIT, flag=False)

    augment: str = _one_of("none|flips|full|strong", "flips", "Sets those below.", AUGMENT)
    flips: bool | None = _key(None, "Mirrored, both ways.", AUGMENT, flag=False)
    turns: bool | None = _key(None, "Quarter turns.", AUGMENT, flag=False)
    rotation: float | None = _key(None, "Up to so many degrees.", AUGMENT, 0, 180, flag=False)
    shift: float | None = _key(None, "Up to this share of a side.", AUGMENT, 0, 1, flag=False)
    zoom: float | None = _key(None, "0.2 is from 0.8 to 1.2.", AUGMENT, 0, 0.9, flag=False)
    shear: float | None = _key(None, "0.05 is 5 %.", AUGMENT, 0, 1, flag=False)
    brightness: float | None = _key(None, "0.2 is from 0.8 to 1.2.", AUGMENT, 0, 1, flag=False)
    stain: float | None = _key(None, "Spread of the stains' strength.", AUGMENT, 0, 1, flag=False)
    fill: str = _one_of("reflect|nearest", "reflect", "Of what is moved in.", AUGMENT, flag=False)

    def to_json(self) -> dict[str, Any]:
        """As `run.json` keeps it."""
        return asdict(self)

    def to_toml(self, comments: Iterable[str] = ()) -> str:
        """As a file that `--recipe FILE` reads, each key with what it is."""
        lines = [f"# {line}".rstrip() for line in comments]
        panel = ""
        for own in fields(self):
            about, value = own.metadata, getattr(self, own.name)
            if about["panel"] != panel:
                panel = about["panel"]
                lines += ["", f"# {panel}"]
            given = "" if value is None else f"{own.name} = {_toml(value)}"
            lines.append(f"{given or f'# {own.name} ='}  # {about['help']}{_choices(about)}".rstrip())
        return "\n".join(lines) + "\n"


def _choices(about: Mapping[str, Any]) -> str:
    return f" {'|'.join(map(str, about['choices']))}" if "choices" in about else ""


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def with_choices(recipe: Recipe, given: Mapping[str, Any], where: str = "") -> Recipe:
    """A recipe with some keys given anew, checked.

    Args:
        recipe: over which they go.
        given: values by key; None stands for "not given".
        where: the file that they come from; flags where it is empty.

    Raises:
        UsageProblem: there is no such key, or a value is not in its limits.
    """
    known = {own.name: own for own in fields(Recipe)}
    chosen = {}
    for key, value in given.items():
        if key not in known:
            name = _named(key, where) if where else f"--set {key}"
            raise UsageProblem(f"{name}: no such key; `wbctool train --recipe best --show` lists all")
        if value is not None:
            chosen[key] = _checked(known[key], value, _named(key, where))
    return replace(recipe, **chosen)


def of_length(recipe: Recipe, epochs: int) -> Recipe:
    """A recipe of so many epochs in all, its phases as long in proportion; each has one where there are two."""
    share = epochs / max(recipe.epochs, 1)
    frozen = min(max(round(recipe.frozen_epochs * share), 1), max(epochs - 1, 0)) if recipe.frozen_epochs else 0
    entropy = round(recipe.ce_epochs * share) if recipe.loss == "ce-then-focal" else recipe.ce_epochs
    return replace(recipe, epochs=epochs, frozen_epochs=frozen, ce_epochs=entropy)


def _named(key: str, where: str) -> str:
    return f"{where}: {key}" if where else f"--{key.replace('_', '-')}"


def _checked(own: Field[Any], value: Any, name: str) -> Any:
    about = own.metadata
    if own.name in ("mean", "std"):
        return _triple(value, name, 0.0 if own.name == "mean" else 1e-6)
    if own.name == "dense":
        return _widths(value, name)
    if own.name == "alpha":
        value = str(value)
    if "choices" in about and value not in about["choices"]:
        raise UsageProblem(f"{name} {value}: choose from {', '.join(map(str, about['choices']))}")
    kinds: dict[str, type[Any] | tuple[type[Any], ...]] = {
        "int": int,
        "float": (int, float),
        "str": str,
        "bool": bool,
        "dict": dict,
    }
    kind = kinds[str(own.type).split(" ")[0].split("[")[0]]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words: dict[Any, str] = {int: "a whole number", str: "a word", bool: "true or false", dict: "a table"}
        raise UsageProblem(f"{name} {value}: give {words.get(kind, 'a number')} ({about['help'].rstrip('.')})")
    if isinstance(value, int | float) and not about["low"] <= value <= about["high"]:
        raise UsageProblem(f"{name} {value}: give a number from {about['low']:g} to {about['high']:g}")
    return float(value) if kind == (int, float) else value


def _triple(value: Any, name: str, low: float) -> tuple[float, ...]:
    """`0.5` or `0.5,0.5,0.5` as three numbers."""
    parts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [value]
    try:
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) not in (1, 3) or not all(low <= number <= 1 for number in numbers):
        raise UsageProblem(f"{name} {value}: give one number or three, in 0 to 1, such as 0.5 or 0.485,0.456,0.406")
    return numbers * 3 if len(numbers) == 1 else numbers


def _widths(value: Any, name: str) -> tuple[int, ...]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    try:
        widths = tuple(int(part) for part in parts if part != "")
    except (TypeError, ValueError):
        widths = (0,)
    if not all(1 <= width <= 65536 for width in widths):
        raise UsageProblem(f"{name} {value}: give widths such as 256 or 512,128")
    return widths


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, each with its variants as `name:variant`."""
    names = []
    for file in sorted(files("wbctool.training").joinpath("recipes").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            stem = file.name.removesuffix(".toml")
            names += [stem, *(f"{stem}:{name}" for name in _parsed(file.read_text("utf-8"), stem).get("variants", {}))]
    return names


def read_recipe(name: str) -> tuple[Recipe, list[str]]:
    """A recipe of the package, `NAME` or `NAME:VARIANT`, or a TOML file.

    Returns:
        The recipe, and what its file says about it at its top.

    Raises:
        UsageProblem: no recipe or variant has that name, or it holds what no recipe has.
        InputError: a file is no TOML.
    """
    stem, _, variant = name.partition(":")
    if name.endswith(".toml") or "/" in name:
        stem, variant = name, ""
        if not Path(name).is_file():
            raise UsageProblem(f"--recipe {name}: no such file")
        text = Path(name).read_text("utf-8", errors="replace")
    else:
        if name not in recipe_names():
            known = [own for own in recipe_names() if name in own]
            near = known or get_close_matches(name, recipe_names(), 3) or recipe_names()
            raise UsageProblem(f"--recipe {name}: choose from {', '.join(near)}, or give a .toml file")
        text = files("wbctool.training").joinpath("recipes").joinpath(f"{stem}.toml").read_text("utf-8")
    table = _parsed(text, stem)
    variants = table.pop("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(own, dict) for own in variants.values()):
        raise InputError(f"{name}: variants are tables, such as [variants.mine]")
    chosen = {**table, **variants.get(variant, {})}
    about = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        about.append(line.removeprefix("#").strip())
    return with_choices(Recipe(), chosen, name), about


def read_started(run: Path) -> Recipe:
    """The recipe with which a run folder, or the first of several under it, was started.

    Raises:
        InputError: nothing was started there.
    """
    from wbctool.pipeline.output_folder import read_run  # completion reads the keys above without what records need

    for file in (run / "run.json", run / "fold-1" / "run.json", run / "repeat-1" / "run.json"):
        if file.exists():
            settings = read_run(file, "train again without --resume")["settings"]
            known = {own.name for own in fields(Recipe)}
            return with_choices(Recipe(), {key: value for key, value in settings.items() if key in known}, str(file))
    raise InputError(f"{run}: no training was started there; leave --resume out")


def _parsed(text: str, name: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name}: no TOML ({error}); `wbctool train --recipe best --show` shows one") from None
