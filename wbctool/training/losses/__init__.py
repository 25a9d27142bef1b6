"""What a training minimises: a loss with class weights and label smoothing.

Each module of this package declares a loss as a `LossMethod`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from wbctool.pipeline.parameters import Parameters
from wbctool.pipeline.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from wbctool.training.recipe import Recipe


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


@dataclass(frozen=True)
class Objective:
    """A loss and how it weighs samples.

    `class_names` are in the order of the logits. `label_smoothing` is the fraction of a label that is spread over all
    classes, 0 to under 1. `class_weights` has shape (classes,), over 0; None where all classes count the same.
    """

    method: LossMethod
    parameters: Parameters
    class_names: tuple[str, ...]
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    @property
    def switch_epoch(self) -> int:
        """The last epoch before the loss becomes another one; 0 where it does not."""
        return getattr(self.parameters, self.method.switch) if self.method.switch else 0

    def sum(self, logits: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """Return the summed loss of logits (n, classes) for class indices (n,), float32, or float64 for such logits."""
        logits = logits if logits.element_size() == 8 else logits.float()
        return self.method.function(logits, targets, self, epoch).sum()

    def weights_like(self, logits: Tensor) -> Tensor | None:
        """Return the class weights in the type and on the device of logits."""
        return None if self.class_weights is None else self.class_weights.to(logits)

    def weight(self, targets: Tensor) -> Tensor:
        """Return what the mean divides the sum by: the summed class weights of the labels (n,)."""
        if self.class_weights is None:
            return targets.new_tensor(len(targets)).float()
        return self.class_weights.to(targets.device)[targets].sum()

    def mean(self, logits: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """Return the mean loss of a batch, a scalar; see `sum`."""
        total = self.sum(logits, targets, epoch)
        return total / self.weight(targets).to(total)


def balanced_weights(counts: Tensor) -> Tensor:
    """Return n / (classes · n_c), by counts of images (classes,), all positive: every class weighs the same in total.

    Source: King and Zeng 2001; the attentive-CNN paper.
    """
    counts = counts.double()
    return counts.sum() / (len(counts) * counts)


def effective_weights(counts: Tensor, beta: float) -> Tensor:
    """Return (1 − β) / (1 − β^n_c), scaled to a mean of 1, by counts of images (classes,) (Cui et al. 2019, eq. 2).

    β is 0 to under 1: 0 weighs all classes the same; towards 1 it approaches `balanced_weights`.
    """
    weights = (1 - beta) / (1 - beta ** counts.double())
    return weights / weights.mean()


def make_objective(recipe: Recipe, class_names: Sequence[str], counts: Tensor) -> Objective:
    """Return the objective of a recipe, for counts of the training images of each class (classes,)."""
    method = LOSSES.get(recipe.loss, "--loss")
    values = {name: getattr(recipe, name) for name in method.parameters.model_fields}
    weights = None
    if recipe.class_weights == "balanced":
        weights = balanced_weights(counts)
    elif recipe.class_weights == "effective":
        weights = effective_weights(counts, recipe.beta)
    names = tuple(class_names)
    objective = Objective(method, method.parameters(**values), names, recipe.label_smoothing, weights)
    for epoch in (1, max(recipe.epochs, 1)):  # reports an invalid parameter before any image is read
        objective.sum(counts.new_zeros(1, len(names)).float(), counts.new_zeros(1), epoch)
    return objective


def loss_parameters(base: type[Parameters], panel: str) -> type[Parameters]:
    """Return the parameters of all losses, after those of `base`; the help of each names the losses that take it."""
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
