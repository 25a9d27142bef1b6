"""What a training minimises: a loss with class weights and label smoothing, summed so that parts of a batch add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wbctool.pipeline.parameters import Parameters
from wbctool.training.losses import LOSSES, LossMethod
from wbctool.training.recipe import Recipe


@dataclass(frozen=True)
class Objective:
    """A loss and how it weighs samples.

    Attributes:
        method: the loss.
        parameters: of the loss.
        class_names: in the order of the logits.
        label_smoothing: fraction of a label that is spread over all classes, 0 to under 1.
        class_weights: shape (classes,), over 0; None where all classes count the same.
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
        """Return the summed loss of a batch, float32, or float64 for such logits.

        Args:
            logits: shape (n, classes).
            targets: class indices, shape (n,).
            epoch: from 1.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return self.method.function(logits, targets, self, epoch).sum()

    def weights_like(self, logits: Tensor) -> Tensor | None:
        """Return the class weights in the type and on the device of logits."""
        return None if self.class_weights is None else self.class_weights.to(logits)

    def weight(self, targets: Tensor) -> Tensor:
        """Return what the mean divides the sum by: the summed class weights of the labels (n,)."""
        if self.class_weights is None:
            return torch.tensor(float(len(targets)), device=targets.device)
        return self.class_weights.to(targets.device)[targets].sum()

    def mean(self, logits: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """Return the mean loss of a batch, a scalar; see `sum`."""
        total = self.sum(logits, targets, epoch)
        return total / self.weight(targets).to(total)


def balanced_weights(counts: Tensor) -> Tensor:
    """Return n / (classes · n_c): every class weighs the same in total (King and Zeng 2001; the attentive-CNN paper).

    Args:
        counts: images of each class, shape (classes,), all positive.
    """
    counts = counts.double()
    return counts.sum() / (len(counts) * counts)


def effective_weights(counts: Tensor, beta: float) -> Tensor:
    """Return (1 − β) / (1 − β^n_c), scaled to a mean of 1 (Cui et al. 2019, eq. 2).

    Args:
        counts: images of each class, shape (classes,), all positive.
        beta: 0 to under 1; 0 weighs all classes the same; towards 1 it approaches `balanced_weights`.
    """
    weights = (1 - beta) / (1 - beta ** counts.double())
    return weights / weights.mean()


def make_objective(recipe: Recipe, class_names: Sequence[str], counts: Tensor) -> Objective:
    """Return the objective of a recipe.

    Args:
        recipe: its loss, the parameters of that, label smoothing and class weights.
        class_names: in the order of the logits.
        counts: training images of each class, shape (classes,).

    Raises:
        UsageProblem: a parameter of the loss is invalid for these classes.
    """
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
        objective.sum(torch.zeros(1, len(names)), torch.zeros(1, dtype=torch.int64), epoch)
    return objective
