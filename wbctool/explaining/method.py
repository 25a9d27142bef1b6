"""What a method of class-activation maps declares, and the registry of methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wbctool.errors import UsageProblem
from wbctool.pipeline.parameters import Parameters, checked, option_name
from wbctool.pipeline.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wbctool.modeling.model_types import Model
else:
    Tensor = Any  # for annotations of methods: torch is imported where it is used


@dataclass(frozen=True)
class CamContext:
    """What the maps of a batch are computed from, at one layer and for one view of each image."""

    activations: Tensor  # output of the layer, (n, channels, h, w), float32
    images: Tensor  # (n, 3, size, size), uint8 or float, 0 to 255
    classes: Tensor  # number of the explained class of each image, (n,)
    score: Callable[[Tensor], Tensor]  # returns the logits (n, classes) of images, without gradients
    fill: Tensor  # colour of hidden pixels, (3, 1, 1), 0 to 255: the one that the model normalizes to 0
    gradients: Any = None  # of the class scores by the activations, in their shape; None where a method needs none
    views: int = 1  # number of views that a map is averaged over
    parameters: Any = None  # values of the method's parameters


@dataclass(frozen=True)
class Target:
    """A module to explain in place of a layer."""

    module: nn.Module
    activations: Callable[[Tensor], Tensor]  # from the module's output to activations (n, channels, h, w)


@dataclass(frozen=True)
class CamMethod:
    """A method of class-activation maps, declared as a constant of a module in `wbctool.explaining.methods`.

    Attributes:
        name: in `--method`, records and tables.
        help: one line.
        maps: computes maps (n, h, w) of a `CamContext`. Negative values count as 0; the scale does not matter.
        paper: authors, year and short title; empty for none.
        needs_gradients: whether `maps` uses gradients.
        depends_on_class: whether the maps of two classes may differ.
        parameters: what people may choose; each field becomes an option.
        passes: returns the forward passes that one view of an image takes, by the parameters.
        targets: finds what is explained in a model, by name, for a method that does not explain layers' feature
            maps; it takes the model and the names given as `--layer`. Such a method gets no gradients.
        range_key: key under which records keep the least and the greatest value of a map; empty for none.
    """

    name: str
    help: str
    maps: Callable[[CamContext], Tensor]
    paper: str = ""
    needs_gradients: bool = False
    depends_on_class: bool = True
    parameters: type[Parameters] = Parameters
    passes: Callable[[Any], int] = lambda _parameters: 1
    targets: Callable[[Model, Sequence[str]], dict[str, Target]] | None = None
    range_key: str = ""


METHODS = Registry("wbctool.explaining.methods", CamMethod, "explanation method")


def parameters_of(methods: Iterable[str], values: Mapping[str, Any]) -> dict[str, Parameters]:
    """Return the validated parameters of each method, by its name, from values by name, those of all methods."""
    chosen = [METHODS.get(name, "--method") for name in methods]
    for name in values:
        if not any(name in method.parameters.model_fields for method in chosen):
            takers = [method.name for method in METHODS if name in method.parameters.model_fields]
            raise UsageProblem(f"{option_name(name)} goes with --method {' or '.join(takers) or '…'}; leave it out")
    return {
        method.name: checked(
            method.parameters,
            {name: value for name, value in values.items() if name in method.parameters.model_fields},
            option_name,
        )
        for method in chosen
    }
