"""What the shell completes after a command: options and their values.

Imported only while a shell completes. Options are read from `completion.json`, which `tests/option_tables.py` writes,
as importing a command takes long; it is imported all the same where a module was added since.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from inspect import Parameter, Signature
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any

import typer
from typer.core import TyperOption

TABLE = "completion.json"
_CHOICES = re.compile(r"[\w.+-]+(\|[\w.+-]+)+")
_TYPES: dict[str, Any] = {"flag": bool, "value": str, "values": list[str]}
_PACKAGES = (
    "wbctool.segmentation.methods",
    "wbctool.explaining.methods",
    "wbctool.training.losses",
    "wbctool.statistics.metrics",
)
_REGISTERED = {  # values of options that help does not list
    ("segment", "method"): "wbctool.segmentation:METHODS",
    ("explain", "methods"): "wbctool.explaining:METHODS",
    ("train", "recipe"): "wbctool.training.recipe_files:recipe_names",
    ("evaluate", "columns"): "wbctool.statistics.metrics:METRICS",
}
_DEPTH, _ENTRIES = 3, 5000  # how far run folders are looked for


Entry = dict[str, Any]  # of a parameter: the arguments of `_annotation`


def command_of(name: str) -> Any:
    """A command with the options and arguments of `wbctool NAME`, their help and completions, that does nothing."""

    def command(**_values: Any) -> None:
        """Stand for the command."""

    table = json.loads(files("wbctool.commands").joinpath(TABLE).read_text("utf-8"))
    entries: list[Entry] = table["commands"][name] if table["modules"] == modules() else entries_of(name)
    annotations = {entry["name"]: _annotation(name, **entry) for entry in entries}
    kinds = [Parameter(key, Parameter.KEYWORD_ONLY, annotation=kind, default=None) for key, kind in annotations.items()]
    command.__signature__ = Signature(kinds)  # type: ignore[attr-defined]
    command.__annotations__ = annotations
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return typer.main.get_command(app)


def modules() -> dict[str, list[str]]:
    """The modules of each package that declares what options or their values are made from."""
    found = {}
    for package in _PACKAGES:
        loaded = sys.modules.get(package)
        paths = list(loaded.__path__) if loaded else [str(Path(__file__).parents[1].joinpath(*package.split(".")[1:]))]
        found[package] = sorted(module.name for module in iter_modules(paths))
    return found


def entries_of(name: str) -> list[Entry]:
    """The parameters of a command, imported from its module, with what a shell needs to complete them."""
    command = typer.main.get_command(import_module(f"wbctool.commands.{name.replace('-', '_')}").app)
    entries = []
    for parameter in command.params:
        is_option = isinstance(parameter, TyperOption)
        several = parameter.multiple if isinstance(parameter, TyperOption) else parameter.nargs != 1
        entry: Entry = {
            "name": parameter.name,
            "type": "flag" if getattr(parameter, "is_flag", False) else "values" if several else "value",
            "flags": [*parameter.opts, *parameter.secondary_opts] if is_option else [],
            "help": getattr(parameter, "help", None) or "",
            "form": parameter.metavar or "",
        }
        if source := _REGISTERED.get((name, str(parameter.name))):
            module, _, attribute = source.partition(":")
            names = getattr(import_module(module), attribute)
            entry["choices"] = names() if callable(names) else names.names()
        entries.append(entry)
    return entries


def _annotation(
    command: str, name: str, type: str, flags: list[str], help: str, form: str, choices: list[str] | None = None
) -> Any:
    """The annotation that makes typer's parameter of an entry of the table."""
    choices = choices or (form.split("|") if _CHOICES.fullmatch(form) else [])
    source = _FROM_DISK.get((command, name)) or (partial(_listed, choices) if choices else None)
    complete = _matching(source) if source else None
    if not flags:
        return Annotated[_TYPES[type], typer.Argument(metavar=form, autocompletion=complete)]
    return Annotated[_TYPES[type], typer.Option(*flags, metavar=form, help=help, autocompletion=complete)]


def _matching(source: Callable[[str], Iterable[str]]) -> Callable[[str], list[str]]:
    def matching(incomplete: str) -> list[str]:
        return [name for name in source(incomplete) if name.startswith(incomplete)]

    return matching


def _listed(names: list[str], incomplete: str) -> Iterable[str]:
    """Names of a list; after a comma those that are not there yet."""
    before = incomplete[: incomplete.rfind(",") + 1]
    return [before + name for name in names if name not in before.split(",")]


def backbones(_incomplete: str = "") -> Iterable[str]:
    """`custom-cnn` and timm's models, read from its source, as importing it takes seconds."""
    spec = find_spec("timm")
    folder = Path(spec.origin).parent / "models" if spec and spec.origin else Path()
    names = {"custom-cnn"}
    for file in folder.glob("*.py"):
        names.update(re.findall(r"^@register_model\s+def (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE))
    return sorted(names)


def run_folders(incomplete: str) -> Iterator[str]:
    """Run folders near what is typed; with none, the shell completes files."""
    base = os.path.dirname(incomplete)
    waiting, seen = [(base, 0)], 0
    while waiting:
        folder, depth = waiting.pop(0)
        try:
            with os.scandir(folder or ".") as entries:
                names = []
                for entry in entries:
                    seen += 1
                    if seen > _ENTRIES:
                        return
                    if not entry.name.startswith(".") and entry.is_dir():
                        names.append(entry.name)
        except OSError:
            continue
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.exists(os.path.join(path, "model.json")):
                yield path
            elif depth + 1 < _DEPTH:
                waiting.append((path, depth + 1))


_FROM_DISK: dict[tuple[str, str], Callable[[str], Iterable[str]]] = {
    ("train", "backbone"): backbones,
    ("predict", "arguments"): run_folders,
    ("evaluate", "inputs"): run_folders,
    ("evaluate", "baseline"): run_folders,
    ("evaluate", "trained_on"): run_folders,
    ("explain", "run"): run_folders,
    ("explain", "compare"): run_folders,
    ("xgboost-fuse", "arguments"): run_folders,
    ("info", "path"): run_folders,
}
