"""Recipes as people give them: a name, a TOML file, options over it; and as `--show` prints them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

from wbctool.errors import InputError, UsageProblem
from wbctool.modeling.architecture import CUSTOM_CNN
from wbctool.pipeline.parameters import about, checked, choices_of, option_name
from wbctool.training.losses import LOSSES
from wbctool.training.recipe import Recipe


def choose_recipe(
    name: str | None = None, values: Mapping[str, Any] | None = None, resume: Path | None = None
) -> Recipe:
    """Return the recipe for a training.

    Args:
        name: recipe of the package, `NAME` or `NAME:VARIANT`, or a TOML file; None for `best`, in the variant that
            suits the backbone.
        values: keys that go over the recipe; None stands for "not given". `epochs` alone scales the phases.
        resume: run folder whose recipe is taken instead.

    Raises:
        UsageProblem: the recipe or a key is unknown, or a value is invalid.
        InputError: a file cannot be read.
    """
    values = {key: value for key, value in (values or {}).items() if value is not None}
    if resume is not None:
        return with_values(read_started(resume), values)
    if values.get("backbone") == CUSTOM_CNN:
        values.setdefault("weights", "none")  # it has no others
    base = read_recipe(_best_variant(values) if name in (None, "best") else str(name))
    if values.get("patience") and base.best_by == "last":  # patience waits for a better epoch, so the best is kept
        values.setdefault("best_by", "balanced_accuracy")
    recipe = with_values(base, values)
    if "epochs" in values:
        others = {key: value for key, value in values.items() if key != "epochs"}
        recipe = with_values(of_length(with_values(base, others), recipe.epochs), values)
    return recipe


def _best_variant(values: Mapping[str, Any]) -> str:
    """`best`, or its variant for the network."""
    if values.get("weights") == "none":
        return "best:scratch"
    from wbctool.modeling.classifier import has_batch_norm

    return "best" if has_batch_norm(values.get("backbone") or Recipe().backbone) else "best:no-batch-norm"


def with_values(recipe: Recipe, values: Mapping[str, Any], file: str = "") -> Recipe:
    """Return a recipe with other values for some keys, but for None; errors name the `file` of these, or options."""

    def name_of(key: str) -> str:
        return f"{file}: {key}" if file else option_name(key)

    for key in values:
        if key not in Recipe.model_fields:
            name = name_of(key) if file else f"--set {key}"
            raise UsageProblem(f"{name}: no such key; `wbctool train --recipe best --show` lists all")
    return checked(Recipe, {key: value for key, value in values.items() if value is not None}, name_of, recipe)


def of_length(recipe: Recipe, epochs: int) -> Recipe:
    """Return a recipe of so many epochs in all, its phases in proportion; each keeps one where there are two."""
    factor = epochs / max(recipe.epochs, 1)
    lengths = {"epochs": epochs, "frozen_epochs": 0}
    if recipe.frozen_epochs:
        lengths["frozen_epochs"] = min(max(round(recipe.frozen_epochs * factor), 1), max(epochs - 1, 0))
    if switch := LOSSES.get(recipe.loss).switch:
        lengths[switch] = round(getattr(recipe, switch) * factor)
    return recipe.replaced(**lengths)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package, and their variants as `name:variant`."""
    names = []
    for file in sorted(files("wbctool.training").joinpath("recipes").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            stem = file.name.removesuffix(".toml")
            names += [stem, *(f"{stem}:{name}" for name in _parse(file.read_text("utf-8"), stem).get("variants", {}))]
    return names


def read_recipe(name: str) -> Recipe:
    """Return a recipe of the package, `NAME` or `NAME:VARIANT`, or of a TOML file."""
    table = _parse(_text_of(name), name)
    variants = table.pop("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(variant, dict) for variant in variants.values()):
        raise InputError(f"{name}: variants are tables, such as [variants.mine]")
    variant = "" if _is_file(name) else name.partition(":")[2]
    return with_values(Recipe(), {**table, **variants.get(variant, {})}, name)


def recipe_comments(name: str) -> list[str]:
    """Return the comment lines at the top of a recipe's file."""
    comments = takewhile(lambda line: line.startswith("#"), _text_of(name).splitlines())
    return [line.removeprefix("#").strip() for line in comments]


def read_started(run: Path) -> Recipe:
    """Return the recipe with which a run folder, or the first of several under it, was started."""
    from wbctool.pipeline.output_folder import read_run  # completion reads recipes without what records need

    for file in (run / "run.json", run / "fold-1" / "run.json", run / "repeat-1" / "run.json"):
        if file.exists():
            settings = read_run(file, "train again without --resume")["settings"]
            values = {key: value for key, value in settings.items() if key in Recipe.model_fields}
            return with_values(Recipe(), values, str(file))
    raise InputError(f"{run}: no training was started there; leave --resume out")


def to_toml(recipe: Recipe, comments: Iterable[str] = ()) -> str:
    """Return a recipe as a file that `--recipe FILE` reads, each key with its help."""
    lines = [f"# {line}".rstrip() for line in comments]
    panel = ""
    for key, field in Recipe.model_fields.items():
        if about(field, "panel") != panel:
            panel = about(field, "panel")
            lines += ["", f"# {panel}"]
        value = getattr(recipe, key)
        entry = f"# {key} =" if value is None else f"{key} = {_toml(value)}"
        lines.append(f"{entry}  # {field.description} {'|'.join(map(str, choices_of(field)))}".rstrip())
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:  # the standard library reads TOML only
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _is_file(name: str) -> bool:
    return name.endswith(".toml") or "/" in name


def _text_of(name: str) -> str:
    """The TOML of a recipe."""
    if _is_file(name):
        if not Path(name).is_file():
            raise UsageProblem(f"--recipe {name}: no such file")
        return Path(name).read_text("utf-8", errors="replace")
    names = recipe_names()
    if name not in names:
        near = [known for known in names if name in known] or get_close_matches(name, names, 3) or names
        raise UsageProblem(f"--recipe {name}: choose from {', '.join(near)}, or give a .toml file")
    stem = name.partition(":")[0]
    return files("wbctool.training").joinpath("recipes").joinpath(f"{stem}.toml").read_text("utf-8")


def _parse(text: str, name: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name}: not TOML ({error}); `wbctool train --recipe best --show` shows one") from None
