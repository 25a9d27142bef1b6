"""Grad-CAM."""

from wbctool.explaining.method import CamContext, CamMethod, Tensor


def maps(context: CamContext) -> Tensor:
    """Weight each channel by its mean gradient (equations 1 and 2)."""
    import torch

    return torch.einsum("nc,nchw->nhw", context.gradients.mean((2, 3)), context.activations)


GRADCAM = CamMethod(
    name="gradcam",
    help="Channels weighted by their mean gradient.",
    paper="Selvaraju et al. 2017, Grad-CAM",
    maps=maps,
    needs_gradients=True,
)
