"""Cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.pipeline.parameters import Parameters
from wbctool.training.losses import LossBatch, LossMethod

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(batch: LossBatch, _parameters: Parameters | None = None) -> Tensor:
    """Return −log p of the true class of each sample, shape (n,)."""
    from torch.nn import functional

    return functional.cross_entropy(
        batch.logits,
        batch.targets,
        weight=batch.class_weights,
        label_smoothing=batch.label_smoothing,
        reduction="none",
    )


CROSS_ENTROPY = LossMethod("ce", "Cross-entropy.", "Goodfellow et al. 2016, section 6.2.2", Parameters, cross_entropy)
