"""Score-CAM: channels weighted by the class' score when only they are seen (Wang et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from wbctool.device import images_at_once


def scorecam(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    fill: Tensor,
    activations: Tensor,
    classes: Tensor,
    channels: int | None = None,
) -> Tensor:
    """Maps (n, h, w) of activations, each channel weighted by the softmax over channels of its score.

    A channel's score is that of its image, shown as far as the channel, scaled to 0 to 1, fires. All pairs of
    image and channel go through the network in batches; channels that are the same everywhere hide the whole
    image, and share one pass.

    Args:
        score: gives logits (n, classes) of images.
        images: (n, 3, size, size), float, 0 to 255.
        fill: the colour of what is hidden, (3, 1, 1).
        activations: (n, channels, h, w).
        classes: of each image, the class that is explained, (n,).
        channels: only so many, the most active, of each image; all without.
    """
    flat = activations.flatten(2)
    low, high = flat.amin(2), flat.amax(2)
    seen = high > low
    kept = seen if channels is None else seen & _highest(high.where(seen, -torch.inf), channels)
    image, channel = kept.nonzero(as_tuple=True)
    scores = torch.full(low.shape, -torch.inf, device=images.device)
    if channels is None and not bool(seen.all()):
        hidden = score(fill[None].expand(1, *images.shape[1:]))[0].float()
        scores = hidden[classes][:, None].expand_as(low).clone()
    shown = images - fill
    at_once = images_at_once(images.device)
    for i, k in zip(image.split(at_once), channel.split(at_once), strict=True):
        masks = functional.interpolate(
            activations[i, k][:, None], images.shape[2:], mode="bilinear", align_corners=True
        )
        masks = masks - masks.amin((2, 3), keepdim=True)
        masks = masks / (masks.amax((2, 3), keepdim=True) + 1e-8)
        logits = score(shown[i].mul_(masks).add_(fill).contiguous(memory_format=torch.channels_last))
        scores[i, k] = logits.gather(1, classes[i][:, None])[:, 0].float()
    return torch.einsum("nc,nchw->nhw", scores.softmax(1).nan_to_num(), activations)


def _highest(peaks: Tensor, count: int) -> Tensor:
    """Which channels have the `count` highest peaks in the image, (n, channels).

    Ranked by their mean, the same number comes out farther from all of them: many alike see most of the cell.
    """
    best = peaks.topk(min(count, peaks.shape[1]), dim=1).indices
    return torch.zeros_like(peaks, dtype=torch.bool).scatter_(1, best, True)
