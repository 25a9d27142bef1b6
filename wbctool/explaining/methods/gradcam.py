"""Grad-CAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.explaining.method import CamContext, CamMethod

if TYPE_CHECKING:
    from torch import Tensor


def maps(context: CamContext) -> Tensor:
    """Weight each channel by its mean gradient (equations 1 and 2)."""
    import torch

    assert context.gradients is not None
    return torch.einsum("nc,nchw->nhw", context.gradients.mean((2, 3)), context.activations)


GRADCAM = CamMethod(
    name="gradcam",
    help="Channels weighted by their mean gradient.",
    paper="Selvaraju et al. 2017, Grad-CAM",
    maps=maps,
    needs_gradients=True,
)
