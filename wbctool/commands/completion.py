"""What the shell completes beside options: methods, recipes, backbones, run folders, and choices.

Imported only while a shell completes; nothing here imports more than a list of names needs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_CHOICES = re.compile(r"[\w.+-]+(\|[\w.+-]+)+")
_DEPTH, _ENTRIES = 3, 5000  # how far run folders are looked for


def attach(command: Any, ctx: Any) -> None:
    """Give the parameters of a command their completions.

    Args:
        command: a click command.
        ctx: its context.
    """
    for parameter in command.get_params(ctx):
        source = _SOURCES.get((command.name, parameter.name))
        form = parameter.metavar or ""
        if source is None and _CHOICES.fullmatch(form):
            source = _one_of(form.split("|"))
        if source:
            parameter._custom_shell_complete = _matching(source)


def _matching(source: Callable[[str], Iterable[str]]) -> Callable[[Any, Any, str], list[str]]:
    return lambda _ctx, _parameter, incomplete: [name for name in source(incomplete) if name.startswith(incomplete)]


def _one_of(names: list[str]) -> Callable[[str], Iterable[str]]:
    return lambda _incomplete: names


def _segmentation_methods(_incomplete: str) -> Iterable[str]:
    from wbctool.segmentation import METHODS

    return METHODS.names()


def _explanation_methods(_incomplete: str) -> Iterable[str]:
    from wbctool.explaining import METHODS

    return METHODS.names()


def _metrics(incomplete: str) -> Iterable[str]:
    from wbctool.statistics.metrics import METRICS

    before = incomplete[: incomplete.rfind(",") + 1]
    return [before + name for name in METRICS.names() if name not in before.split(",")]


def _recipes(_incomplete: str) -> Iterable[str]:
    from wbctool.training.recipe_files import recipe_names

    return recipe_names()


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


_SOURCES: dict[tuple[str, str], Callable[[str], Iterable[str]]] = {
    ("segment", "method"): _segmentation_methods,
    ("explain", "methods"): _explanation_methods,
    ("train", "recipe"): _recipes,
    ("train", "backbone"): backbones,
    ("predict", "arguments"): run_folders,
    ("evaluate", "inputs"): run_folders,
    ("evaluate", "baseline"): run_folders,
    ("evaluate", "columns"): _metrics,
    ("evaluate", "trained_on"): run_folders,
    ("explain", "run"): run_folders,
    ("explain", "compare"): run_folders,
    ("xgboost-fuse", "arguments"): run_folders,
    ("info", "path"): run_folders,
}
