"""Cross-entropy for some epochs, then focal loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.pipeline.parameters import parameter
from wbctool.training.losses import LossMethod, Objective
from wbctool.training.losses.cross_entropy import cross_entropy
from wbctool.training.losses.focal import FocalParameters, focal

if TYPE_CHECKING:
    from torch import Tensor


class CeThenFocalParameters(FocalParameters):
    """Those of the focal loss, and when it begins."""

    ce_epochs: int = parameter(5, "Epochs of cross-entropy.", low=0)


def ce_then_focal(logits: Tensor, targets: Tensor, objective: Objective, epoch: int) -> Tensor:
    """Return cross-entropy in the first `ce_epochs` epochs, focal loss in the others, shape (n,)."""
    loss = cross_entropy if epoch <= objective.switch_epoch else focal
    return loss(logits, targets, objective, epoch)


CE_THEN_FOCAL = LossMethod(
    name="ce-then-focal",
    help="Cross-entropy, then focal loss.",
    paper="the paper on EfficientNetV2-S with CBAM, section 4.3",
    parameters=CeThenFocalParameters,
    function=ce_then_focal,
    switch="ce_epochs",
)
