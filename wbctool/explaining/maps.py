"""Class-activation maps of what a layer gives: one function a method, and their registry.

Each takes the activations (n, channels, h, w) of a layer and, where it needs them, the gradients of the
explained class' score by them, of the same shape; it returns maps (n, h, w) that are not yet scaled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their mean gradient (Selvaraju et al. 2017, equations 1 and 2)."""
    return torch.einsum("nc,nchw->nhw", gradients.mean((2, 3)), activations)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their positive gradients, each as far as it alone explains the score.

    Source: Chattopadhay et al. 2018, equation 19.
    """
    square = gradients**2
    total = activations.sum((2, 3), keepdim=True)
    share = square / (2 * square + total * square * gradients + 1e-6)
    weights = (gradients.relu() * share.where(gradients != 0, torch.zeros_like(share))).sum((2, 3))
    return torch.einsum("nc,nchw->nhw", weights, activations)


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each place of each channel weighted by its own positive gradient (Jiang et al. 2021, equations 5 and 6)."""
    return (gradients.relu() * activations).sum(1)


def eigencam(activations: Tensor, with_activity: bool = False) -> Tensor:
    """The first principal component of the channels (Muhammad and Yeasin 2020), whatever the class, (n, h, w).

    Channels are centred first. Its sign is as LAPACK gives it, as in the package pytorch-grad-cam; or
    `with_activity`, so that it rises with the channels' mean: views of one image then agree.
    """
    count, channels, height, width = activations.shape
    places = activations.nan_to_num().reshape(count, channels, -1).transpose(1, 2).cpu().numpy()
    places = places - places.mean(axis=1, keepdims=True)
    first = np.linalg.svd(places, full_matrices=False)[2][:, 0]
    found = np.einsum("npc,nc->np", places, first).reshape(count, height, width)
    if with_activity:
        level = places.mean(axis=2).reshape(found.shape)
        found = found * np.where((found * level).sum((1, 2), keepdims=True) < 0, -1, 1).astype(found.dtype)
    return torch.from_numpy(found).to(activations.device)


BY_GRADIENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "layercam": layercam,
}


def scaled(maps: Tensor) -> Tensor:
    """Maps (n, h, w), each shifted and stretched to 0 to 1; a constant one becomes 0."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (maps.amax((1, 2), keepdim=True) + 1e-7)


def to_image(maps: Tensor, size: int) -> Tensor:
    """Maps (n, h, w) without what speaks against the class, each scaled to 0 to 1, as (n, size, size)."""
    whole = functional.interpolate(scaled(maps.float().relu())[:, None], (size, size), mode="bilinear")
    return whole[:, 0]
