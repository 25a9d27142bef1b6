"""The kinds of model that a run folder may hold, and how each is built from its `model.json`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

_KINDS: dict[str, tuple[type, Callable[[Any], nn.Module]]] = {}
PLAIN = ""


def register(mark: str, architecture: type, build: Callable[[Any], nn.Module]) -> None:
    """Make a kind known.

    Args:
        mark: the key of `model.json` that only this kind has; `PLAIN` for the kind without one.
        architecture: what describes it, with `from_json`.
        build: makes the untrained model.
    """
    _KINDS[mark] = (architecture, build)


def read(value: dict[str, Any]) -> Any:
    """The architecture that an object of `model.json` describes.

    Raises:
        KeyError, TypeError, ValueError: a part is missing or of another type.
    """
    mark = next((mark for mark in _KINDS if mark and mark in value), PLAIN)
    return _KINDS[mark][0].from_json(value)


def build(architecture: Any) -> nn.Module:
    """The untrained model of an architecture."""
    for kind, make in _KINDS.values():
        if type(architecture) is kind:
            return make(architecture)
    raise TypeError(f"no model of {type(architecture).__name__}")
