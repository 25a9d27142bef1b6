"""Losses and class weights; a loss is a sum and its weight, so that parts of a batch add up exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from wbctool.errors import UsageProblem
from wbctool.training.recipe import Recipe


@dataclass(frozen=True)
class Loss:
    """Cross-entropy, focal loss, or the one and then the other.

    Attributes:
        gamma: focusing of the focal loss, 0 or more.
        alpha: factor of each class in it, shape (classes,), over 0; None for 1.
        smoothing: share of a label that is spread over all classes, 0 to under 1 (Szegedy et al. 2016, section 7).
        weights: of each class, shape (classes,), over 0; None weighs all alike.
        focal_from: the epoch, from 1, with which the focal loss begins; None for never.
    """

    gamma: float = 2.0
    alpha: Tensor | None = None
    smoothing: float = 0.0
    weights: Tensor | None = None
    focal_from: int | None = None

    def parts(self, logits: Tensor, targets: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """The sum over a batch, and the weight by which the mean divides it: the sum of the weights met.

        Args:
            logits: shape (n, classes).
            targets: class indices, shape (n,).
            epoch: from 1.

        Returns:
            Two scalars, float32 or the logits' float64; the second is over 0 where there are samples.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        weights = self.weights.to(logits) if self.weights is not None else None
        if self.focal_from is not None and epoch >= self.focal_from:
            alpha = self.alpha.to(logits) if self.alpha is not None else None
            each = focal_losses(logits, targets, self.gamma, alpha, self.smoothing, weights)
        else:
            each = functional.cross_entropy(
                logits, targets, weight=weights, label_smoothing=self.smoothing, reduction="none"
            )
        return each.sum(), self.weight(targets).to(logits)

    def weight(self, targets: Tensor) -> Tensor:
        """The sum of the class weights of labels (n,)."""
        if self.weights is None:
            return torch.tensor(float(len(targets)), device=targets.device)
        return self.weights.to(targets.device)[targets].sum()

    def mean(self, logits: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """The loss of a batch, a scalar; see `parts`."""
        total, weight = self.parts(logits, targets, epoch)
        return total / weight


def focal_losses(
    logits: Tensor,
    targets: Tensor,
    gamma: float,
    alpha: Tensor | None = None,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Focal loss −α (1 − p)^γ log p of each sample (Lin et al. 2017, eq. 5), shape (n,).

    Smoothed labels sum it over all classes by their share; with γ 0 it is cross-entropy.

    Args:
        logits: shape (n, classes).
        targets: class indices, shape (n,).
        gamma: focusing.
        alpha: factor of each class, shape (classes,).
        smoothing: share of the label spread over all classes.
        weights: further weight of each class, shape (classes,).
    """
    log_p = functional.log_softmax(logits, dim=1)
    terms = -((1 - log_p.exp()).clamp(min=0) ** gamma) * log_p
    for factor in (alpha, weights):
        if factor is not None:
            terms = terms * factor
    own = terms.gather(1, targets[:, None])[:, 0]
    return (1 - smoothing) * own + smoothing * terms.mean(1) if smoothing else own


def balanced_weights(counts: Tensor) -> Tensor:
    """n / (classes · n_c): every class weighs the same in total (King and Zeng 2001; the attentive-CNN paper's).

    Args:
        counts: images of each class, shape (classes,), all positive.
    """
    counts = counts.double()
    return counts.sum() / (len(counts) * counts)


def effective_weights(counts: Tensor, beta: float) -> Tensor:
    """(1 − β) / (1 − β^n_c), scaled to a mean of 1 (Cui et al. 2019, eq. 2).

    Args:
        counts: images of each class, shape (classes,), all positive.
        beta: 0 to under 1; 0 weighs all alike; towards 1 it approaches `balanced_weights`.
    """
    weights = (1 - beta) / (1 - beta ** counts.double())
    return weights / weights.mean()


def make_loss(recipe: Recipe, classes: Sequence[str], counts: Tensor) -> Loss:
    """The loss of a recipe.

    Args:
        recipe: the choices.
        classes: class names.
        counts: training images of each, shape (classes,).

    Raises:
        UsageProblem: `alpha` is neither a number nor one for each of some classes.
    """
    weights = None
    if recipe.class_weights == "balanced":
        weights = balanced_weights(counts)
    elif recipe.class_weights == "effective":
        weights = effective_weights(counts, recipe.beta)
    return Loss(
        gamma=recipe.gamma,
        alpha=_alpha(recipe.alpha, classes),
        smoothing=recipe.label_smoothing,
        weights=weights,
        focal_from={"ce": None, "focal": 1, "ce-then-focal": recipe.ce_epochs + 1}[recipe.loss],
    )


def _alpha(text: str, classes: Sequence[str]) -> Tensor | None:
    """`0.25` for all classes, or `A=0.5,B=2` for some and 1 for the others."""
    if not text:
        return None
    given = dict.fromkeys(classes, 1.0)
    try:
        for part in text.split(","):
            name, equals, value = part.rpartition("=")
            if equals and name not in given:
                raise UsageProblem(f"--alpha {text}: there is no class {name}; there are {', '.join(classes)}")
            if not equals and "," in text:
                raise ValueError
            given.update({name: float(value)} if equals else dict.fromkeys(classes, float(value)))
    except ValueError:
        raise UsageProblem(f"--alpha {text}: give one number, or some as CLASS=NUMBER,CLASS=NUMBER") from None
    if not all(0 < value < float("inf") for value in given.values()):
        raise UsageProblem(f"--alpha {text}: give positive numbers")
    return torch.tensor([given[name] for name in classes], dtype=torch.float64)
