"""The kinds of model that a run folder may hold, and how each is built from its `model.json`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn


class AnyArchitecture(Protocol):
    """What describes a model of any kind.

    Attributes:
        backbone: its name, or those of its members.
        classes: class names, in the order of the outputs.
        size: side of the input, pixels.
        symmetries: of the square, over which probabilities are averaged.
        measures: whether it asks for measures of the cell.
        needs_mask: whether it refuses images without a mask.
        trees: whether it holds trees, which stand in files of their own.
    """

    @property
    def backbone(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def symmetries(self) -> int: ...
    @property
    def measures(self) -> bool: ...
    @property
    def needs_mask(self) -> bool: ...
    @property
    def trees(self) -> bool: ...

    def to_json(self) -> dict[str, Any]:
        """As `model.json` keeps it."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> AnyArchitecture:
        """Read what `to_json` wrote."""


class Model(nn.Module):
    """A model of any kind: images (n, 3, size, size) go in, logits (n, classes) come out."""

    architecture: AnyArchitecture

    def files(self) -> dict[str, bytes]:
        """What stands beside the weights, by name."""
        return {}

    def file_names(self) -> list[str]:
        """The names that `files` gives."""
        return []

    def load_files(self, read: Callable[[str], bytes]) -> None:
        """Take up what `files` gave; `read` gives the bytes of a name.

        Raises:
            ValueError: they do not fit.
        """


class Network(Protocol):
    """A model that has last layers, as trees have not."""

    @property
    def architecture(self) -> AnyArchitecture: ...

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the last layers take of a batch, (n, width), and the logits (n, classes)."""


_KINDS: dict[str, tuple[type[AnyArchitecture], Callable[[Any], Model]]] = {}
PLAIN = ""


def register(mark: str, architecture: type[AnyArchitecture], build: Callable[[Any], Model]) -> None:
    """Make a kind known.

    Args:
        mark: the key of `model.json` that only this kind has; `PLAIN` for the kind without one.
        architecture: what describes it, with `from_json`.
        build: makes the untrained model.
    """
    _KINDS[mark] = (architecture, build)


def read(value: dict[str, Any]) -> AnyArchitecture:
    """The architecture that an object of `model.json` describes.

    Raises:
        KeyError, TypeError, ValueError: a part is missing or of another type.
    """
    mark = next((mark for mark in _KINDS if mark and mark in value), PLAIN)
    return _KINDS[mark][0].from_json(value)


def build(architecture: AnyArchitecture) -> Model:
    """The untrained model of an architecture."""
    for kind, make in _KINDS.values():
        if type(architecture) is kind:
            return make(architecture)
    raise TypeError(f"no model of {type(architecture).__name__}")
