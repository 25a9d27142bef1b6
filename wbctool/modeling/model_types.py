"""The types of model that a run folder may hold: a classifier, an ensemble, a fused model.

Each module that defines one declares it as a `ModelType`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from wbctool.pipeline.registry import Registry

if TYPE_CHECKING:
    from wbctool.modeling.architecture import Architecture
    from wbctool.modeling.ensembles import EnsembleArchitecture
    from wbctool.modeling.fused import FusedArchitecture

    AnyArchitecture: TypeAlias = Architecture | EnsembleArchitecture | FusedArchitecture


class Model(nn.Module):
    """A model of any type: images (n, 3, size, size) go in, logits (n, classes) come out."""

    architecture: AnyArchitecture

    def forward_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features that the last layers take, (n, width), and the logits, (n, classes); trees have none."""
        raise TypeError(f"{type(self).__name__} has no last layers")

    def files(self) -> dict[str, bytes]:
        """Return the contents of the files beside the weights, by name."""
        return {}

    def load_files(self, read: Callable[[str], bytes]) -> None:
        """Load what `files` returned; `read` returns the bytes of a name. ValueError where they do not fit."""


@dataclass(frozen=True)
class ModelType:
    """A type of model.

    Attributes:
        name: of the type.
        help: one line.
        key: the key of `model.json` that only this type has; empty for the classifier.
        architecture: what describes it.
        build: makes the untrained model of an architecture.
    """

    name: str
    help: str
    key: str
    architecture: type[Any]
    build: Callable[[Any], Model]


MODEL_TYPES = Registry("wbctool.modeling", ModelType, "model type")


def read_architecture(value: dict[str, Any]) -> AnyArchitecture:
    """Return the architecture that an object of `model.json` describes; ValueError where a field is invalid."""
    keys = {model_type.key: model_type for model_type in MODEL_TYPES}
    key = next((key for key in keys if key and key in value), "")
    return keys[key].architecture.from_json(value)


def build(architecture: AnyArchitecture) -> Model:
    """Return the untrained model of an architecture."""
    for model_type in MODEL_TYPES:
        if type(architecture) is model_type.architecture:
            return model_type.build(architecture)
    raise TypeError(f"no model type for {type(architecture).__name__}")
