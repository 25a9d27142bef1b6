"""Eigen-CAM."""

from wbctool.explaining.method import CamContext, CamMethod, Tensor


def maps(context: CamContext) -> Tensor:
    """Project the centred channels on their first principal component.

    The sign of a component is arbitrary. For one view it is LAPACK's, as in the package pytorch-grad-cam. For several
    views it is the one in which maps rise with the mean of the channels, so that the views of an image agree.
    """
    import numpy as np
    import torch

    count, channels, height, width = context.activations.shape
    positions = context.activations.nan_to_num().reshape(count, channels, -1).transpose(1, 2).cpu().numpy()
    positions = positions - positions.mean(axis=1, keepdims=True)
    component = np.linalg.svd(positions, full_matrices=False)[2][:, 0]
    projected = np.einsum("npc,nc->np", positions, component).reshape(count, height, width)
    if context.views > 1:
        level = positions.mean(axis=2).reshape(projected.shape)
        falls = (projected * level).sum((1, 2), keepdims=True) < 0
        projected = projected * np.where(falls, -1, 1).astype(projected.dtype)
    return torch.from_numpy(projected).to(context.activations.device)


EIGENCAM = CamMethod(
    name="eigencam",
    help="First principal component of the channels, for any class.",
    paper="Muhammad and Yeasin 2020, Eigen-CAM",
    maps=maps,
    depends_on_class=False,
)
