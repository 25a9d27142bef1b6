"""Losses, with class weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from wbctool.errors import UsageProblem

LOSSES = ("ce", "focal")
CLASS_WEIGHTS = ("none", "balanced")

Loss = Callable[[Tensor, Tensor], Tensor]


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0, alpha: Tensor | None = None) -> Tensor:
    """Focal loss, −α (1 − p)^γ log p, averaged over the batch (Lin et al. 2017, eq. 5).

    Args:
        logits: shape (n, classes).
        targets: class indices, shape (n,).
        gamma: focusing; 0 is cross-entropy.
        alpha: weight of each class, shape (classes,); None weighs all alike.

    Returns:
        A scalar; with `alpha` divided by the sum of the weights met, as cross-entropy does.
    """
    log_p = functional.log_softmax(logits.float(), dim=1).gather(1, targets[:, None])[:, 0]
    losses = -((1 - log_p.exp()).clamp(min=0) ** gamma) * log_p
    if alpha is None:
        return losses.mean()
    weights = alpha[targets]
    return (weights * losses).sum() / weights.sum()


def balanced_weights(counts: Tensor) -> Tensor:
    """n / (classes · n_c) for each class: every class weighs the same in total.

    Args:
        counts: images of each class, shape (classes,), all positive.
    """
    counts = counts.to(torch.float32)
    return counts.sum() / (len(counts) * counts)


def make_loss(name: str, gamma: float, class_weights: str, counts: Tensor) -> Loss:
    """The loss by its name.

    Raises:
        UsageProblem: an unknown name.
    """
    if name not in LOSSES:
        raise UsageProblem(f"--loss {name}: choose from {', '.join(LOSSES)}")
    if class_weights not in CLASS_WEIGHTS:
        raise UsageProblem(f"--class-weights {class_weights}: choose from {', '.join(CLASS_WEIGHTS)}")
    weights = balanced_weights(counts) if class_weights == "balanced" else None
    if name == "focal":
        return lambda logits, targets: focal_loss(logits, targets, gamma, weights)
    return lambda logits, targets: functional.cross_entropy(logits.float(), targets, weight=weights)
