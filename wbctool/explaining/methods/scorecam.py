"""Score-CAM."""

from wbctool.explaining.method import CamContext, CamMethod, Tensor
from wbctool.pipeline.parameters import Parameters, parameter

_USUAL_CHANNELS = 1024  # of a last layer


class ScoreCamParameters(Parameters):
    """Parameters of Score-CAM."""

    channels: int | None = parameter(None, "the K most active channels only.", low=1, form="K")


def maps(context: CamContext) -> Tensor:
    """Weight each channel by the class score of the image that it masks.

    A channel's mask is the channel, scaled to 0 to 1; pixels outside it take the fill colour. Weights are the softmax
    of the scores over channels. All pairs of image and channel go through the network in batches. Constant channels
    hide the whole image and share one pass.
    """
    import torch
    from torch.nn import functional

    from wbctool.device import images_at_once

    images, fill, classes = context.images.float(), context.fill, context.classes
    activations, limit = context.activations, context.parameters.channels
    flat = activations.flatten(2)
    low, high = flat.amin(2), flat.amax(2)
    varying = high > low
    kept = varying
    if limit is not None:
        # by peaks, not by means: the maps of as many channels with high means are farther from the map of all channels
        best = high.where(varying, -torch.inf).topk(min(limit, high.shape[1]), dim=1).indices
        kept = varying & torch.zeros_like(varying).scatter_(1, best, True)
    image_index, channel_index = kept.nonzero(as_tuple=True)
    scores = torch.full(low.shape, -torch.inf, device=images.device)
    if limit is None and not bool(varying.all()):
        hidden = context.score(fill[None].expand(1, *images.shape[1:]))[0].float()
        scores = hidden[classes][:, None].expand_as(low).clone()
    offsets = images - fill
    count = images_at_once(images.device)
    for i, k in zip(image_index.split(count), channel_index.split(count), strict=True):
        masks = functional.interpolate(
            activations[i, k][:, None], images.shape[2:], mode="bilinear", align_corners=True
        )
        masks = masks - masks.amin((2, 3), keepdim=True)
        masks = masks / (masks.amax((2, 3), keepdim=True) + 1e-8)
        masked = offsets[i].mul_(masks).add_(fill).contiguous(memory_format=torch.channels_last)
        scores[i, k] = context.score(masked).gather(1, classes[i][:, None])[:, 0].float()
    return torch.einsum("nc,nchw->nhw", scores.softmax(1).nan_to_num(), activations)


SCORECAM = CamMethod(
    name="scorecam",
    help="Channels weighted by the class score of what they show.",
    paper="Wang et al. 2020, Score-CAM",
    maps=maps,
    parameters=ScoreCamParameters,
    passes=lambda parameters: parameters.channels or _USUAL_CHANNELS,
)
