"""From raw maps to maps of the image: scaled, enlarged, and turned back from a view."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def scaled(maps: Tensor) -> Tensor:
    """Scale each of the maps (n, h, w) to 0 to 1; a constant one becomes 0."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (maps.amax((1, 2), keepdim=True) + 1e-7)


def to_image(maps: Tensor, size: int) -> Tensor:
    """Set negative values of raw maps (n, h, w) to 0, scale each to 0 to 1, and enlarge it: (n, size, size)."""
    whole = functional.interpolate(scaled(maps.float().relu())[:, None], (size, size), mode="bilinear")
    return whole[:, 0]


def undo_view(maps: Tensor, number: int) -> Tensor:
    """Turn maps (n, size, size) of a view back to the image, by the view's number among `symmetries`."""
    maps = maps.transpose(-1, -2) if number & 4 else maps
    maps = maps.flip(-2) if number & 2 else maps
    return maps.flip(-1) if number & 1 else maps
