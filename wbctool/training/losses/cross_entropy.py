"""Cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.pipeline.parameters import Parameters
from wbctool.training.losses import LossMethod, Objective

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, objective: Objective, _epoch: int) -> Tensor:
    """Return −log p of the true class of each sample, shape (n,)."""
    from torch.nn import functional

    weights, smoothing = objective.weights_like(logits), objective.label_smoothing
    return functional.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, reduction="none")


CROSS_ENTROPY = LossMethod("ce", "Cross-entropy.", "Goodfellow et al. 2016, section 6.2.2", Parameters, cross_entropy)
