"""Grad-CAM++."""

from wbctool.explaining.method import CamContext, CamMethod, Tensor


def maps(context: CamContext) -> Tensor:
    """Weight each channel by its positive gradients, with their higher-order weights (equation 19)."""
    import torch

    activations, gradients = context.activations, context.gradients
    square = gradients**2
    total = activations.sum((2, 3), keepdim=True)
    alpha = square / (2 * square + total * square * gradients + 1e-6)
    alpha = alpha.where(gradients != 0, torch.zeros_like(alpha))
    return torch.einsum("nc,nchw->nhw", (gradients.relu() * alpha).sum((2, 3)), activations)


GRADCAM_PLUS_PLUS = CamMethod(
    name="gradcam++",
    help="Channels weighted by their positive gradients.",
    paper="Chattopadhay et al. 2018, Grad-CAM++",
    maps=maps,
    needs_gradients=True,
)
