"""Deletion and insertion: how soon a class is lost, or recognized, as pixels go, or come, in the order of a map.

Source: Petsiuk et al. 2018 (RISE), section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from wbctool.device import images_at_once

STEPS = 32  # from the whole image to an empty one
BLUR = (11, 5.0)  # side and standard deviation of the Gaussian that insertion starts from, for 224 pixels


def pixel_ranks(map_: np.ndarray) -> np.ndarray:
    """Return the rank of each pixel, 0 for the highest, (size, size); equal pixels are ordered at random."""
    random_order = np.random.default_rng(0).permutation(map_.size)
    ranks = np.empty(map_.size, np.int64)
    ranks[np.lexsort((random_order, -map_.ravel()))] = np.arange(map_.size)
    return ranks.reshape(map_.shape)


def curves(
    predict: Callable[[Tensor], np.ndarray],
    images: Tensor,
    fill: Tensor,
    maps: np.ndarray,
    classes: np.ndarray,
    steps: int = STEPS,
) -> dict[str, np.ndarray]:
    """Compute the probability of a class before and after each step of `deletion` and `insertion`, (n, steps + 1).

    `predict` returns the probabilities (n, classes) of images (n, 3, size, size), 0 to 255; `fill` is the colour of
    deleted pixels, (3, 1, 1). There is a map (size, size) and the number of a class for each image.
    """
    images = images.float()
    ranks = torch.from_numpy(np.stack([pixel_ranks(map_) for map_ in maps])).to(images.device)
    limits = torch.linspace(0, maps[0].size, steps + 1, device=images.device).round()
    ends = {"deletion": (images, fill.expand_as(images)), "insertion": (blurred(images), images)}
    curves_of = {name: np.empty((len(images), steps + 1)) for name in ends}
    for name, (before, after) in ends.items():
        cells, count = np.arange(len(images) * (steps + 1)), images_at_once(images.device)
        for chunk in np.split(cells, range(count, len(cells), count)):
            rows, columns = chunk // (steps + 1), chunk % (steps + 1)
            changed = (ranks[rows] < limits[columns, None, None])[:, None]
            probabilities = predict(torch.where(changed, after[rows], before[rows]))
            curves_of[name][rows, columns] = probabilities[np.arange(len(rows)), classes[rows]]
    return curves_of


def area(curve: np.ndarray) -> np.ndarray:
    """Compute the area under curves (…, steps + 1) over 0 to 1: low is good in deletion, high in insertion."""
    return (curve[..., 1:] + curve[..., :-1]).mean(-1) / 2


def blurred(images: Tensor) -> Tensor:
    """Return images (n, 3, size, size) without small details, the start of insertion."""
    scale = images.shape[-1] / 224
    side, deviation = max(3, round(BLUR[0] * scale) | 1), BLUR[1] * scale
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    smooth = np.stack([cv2.GaussianBlur(image, (side, side), deviation) for image in pixels])
    return torch.from_numpy(smooth).permute(0, 3, 1, 2).to(images.device)
