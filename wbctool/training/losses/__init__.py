"""Losses: each module of this package declares one as a `LossMethod`."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from wbctool.pipeline.parameters import Parameters
from wbctool.pipeline.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from wbctool.training.objective import Objective


@dataclass(frozen=True)
class LossMethod:
    """A loss that `--loss` takes.

    Attributes:
        name: value of the option.
        help: one line.
        paper: its source.
        parameters: its parameters, each of which becomes a recipe key and an option of `wbctool train`. One that
            several losses take is declared once, in a class that they share.
        function: takes logits (n, classes), class indices (n,), the `Objective` with the parameters, and the epoch
            from 1; returns the loss of each sample, shape (n,).
        switch: name of the parameter that says for how many epochs another loss comes first. `--epochs` scales it, and
            the best epoch by validation loss is searched from the switch on. Empty where the loss stays the same.
    """

    name: str
    help: str
    paper: str
    parameters: type[Parameters]
    function: Callable[[Tensor, Tensor, Objective, int], Tensor]
    switch: str = ""


LOSSES = Registry("wbctool.training.losses", LossMethod, "loss")


def loss_parameters(base: type[Parameters], panel: str) -> type[Parameters]:
    """Return the parameters of all losses together, as recipe keys; the help of each names the losses that take it.

    Args:
        base: parameters that come first.
        panel: heading under which help shows the options.

    Raises:
        TypeError: two losses declare a parameter of the same name differently.
    """
    declared: dict[str, Any] = {}
    takers: dict[str, list[str]] = {}
    for method in LOSSES:
        for name, field in method.parameters.model_fields.items():
            if repr(declared.setdefault(name, field)) != repr(field) or name in base.model_fields:
                raise TypeError(f"loss {method.name}: its parameter {name} is declared differently elsewhere")
            takers.setdefault(name, []).append(method.name)
    keys: dict[str, Any] = {}
    for name, field in declared.items():
        field = copy(field)
        field.description = f"{', '.join(takers[name])}: {field.description}"
        field.json_schema_extra = {**field.json_schema_extra, "panel": panel}
        keys[name] = (field.annotation, field)
    return create_model("LossParameters", __base__=base, **keys)
