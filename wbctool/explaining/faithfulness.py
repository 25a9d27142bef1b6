"""Deletion and insertion: how soon a class is lost, or found, when pixels go, or come, in a map's order.

Source: Petsiuk et al. 2018 (RISE), section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from wbctool.device import images_at_once

STEPS = 32  # changes of the image from whole to empty
BLUR = (11, 5.0)  # side and standard deviation of the Gaussian that insertion starts from, at 224 pixels


def order_of(map_: np.ndarray) -> np.ndarray:
    """The rank of each pixel, 0 for the highest, (size, size); equal ones stand in an order of chance."""
    chance = np.random.default_rng(0).permutation(map_.size)
    ranks = np.empty(map_.size, np.int64)
    ranks[np.lexsort((chance, -map_.ravel()))] = np.arange(map_.size)
    return ranks.reshape(map_.shape)


def curves(
    probabilities: Callable[[Tensor], np.ndarray],
    images: Tensor,
    fill: Tensor,
    maps: np.ndarray,
    classes: np.ndarray,
    steps: int = STEPS,
) -> dict[str, np.ndarray]:
    """The class' probability after each step of deletion and of insertion.

    Args:
        probabilities: of the classes, (n, classes), of images.
        images: (n, 3, size, size), 0 to 255.
        fill: the colour of what is deleted, (3, 1, 1).
        maps: (n, size, size).
        classes: whose probability is followed, (n,).
        steps: in which all pixels change.

    Returns:
        `deletion` and `insertion`, each (n, steps + 1), 0 to 1: the first before any pixel changed.
    """
    images = images.float()
    ranks = torch.from_numpy(np.stack([order_of(map_) for map_ in maps])).to(images.device)
    limits = torch.linspace(0, maps[0].size, steps + 1, device=images.device).round()
    starts = {"deletion": (images, fill.expand_as(images)), "insertion": (blurred(images), images)}
    found = {name: np.empty((len(images), steps + 1)) for name in starts}
    for name, (before, after) in starts.items():
        for rows, columns in _pairs(len(images), steps + 1, images_at_once(images.device)):
            changed = (ranks[rows] < limits[columns, None, None])[:, None]
            shares = probabilities(torch.where(changed, after[rows], before[rows]))
            found[name][rows, columns] = shares[np.arange(len(rows)), classes[rows]]
    return found


def area(curve: np.ndarray) -> np.ndarray:
    """The area under curves (…, steps + 1) over 0 to 1, by trapezia: low is good of deletion, high of insertion."""
    return (curve[..., 1:] + curve[..., :-1]).mean(-1) / 2


def blurred(images: Tensor) -> Tensor:
    """Images (n, 3, size, size) without what is small, as insertion starts from them."""
    scale = images.shape[-1] / 224
    side, deviation = max(3, round(BLUR[0] * scale) | 1), BLUR[1] * scale
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    made = np.stack([cv2.GaussianBlur(image, (side, side), deviation) for image in pixels])
    return torch.from_numpy(made).permute(0, 3, 1, 2).to(images.device)


def _pairs(rows: int, columns: int, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    every = np.arange(rows * columns)
    for part in np.split(every, range(count, len(every), count)):
        yield part // columns, part % columns
