"""Augmentation of whole batches on the device; images are (n, 3, side, side), 0 to 255.

All chance is drawn beforehand, one row for each image of an epoch, so that an image is changed alike
in whatever batch, process or machine it comes to.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wbctool.imaging.colour import STAINS
from wbctool.training.recipe import Recipe

# What `augment` sets. "full" has the ranges of the attentive-CNN paper, section 2.4, and quarter turns.
PRESETS: dict[str, dict[str, float | bool]] = {
    "none": {},
    "flips": {"flips": True, "turns": True},
    "full": {
        "flips": True,
        "turns": True,
        "rotation": 30.0,
        "shift": 0.1,
        "zoom": 0.2,
        "shear": 0.05,
        "brightness": 0.2,
    },
    "strong": {
        "flips": True,
        "turns": True,
        "rotation": 180.0,
        "shift": 0.1,
        "zoom": 0.25,
        "shear": 0.05,
        "brightness": 0.1,
        "stain": 0.1,
    },
}
_COLUMNS = 16


class Augmentation:
    """The augmentation of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        preset = PRESETS[recipe.augment]

        def amount(name: str) -> float:
            own = getattr(recipe, name)
            return float(preset.get(name, 0.0) if own is None else own)

        self.flips, self.turns = bool(amount("flips")), bool(amount("turns"))
        self.rotation, self.shift, self.zoom = amount("rotation"), amount("shift"), amount("zoom")
        self.shear, self.brightness, self.stain = amount("shear"), amount("brightness"), amount("stain")
        self.fill = {"reflect": "reflection", "nearest": "border"}[recipe.fill]

    @property
    def is_empty(self) -> bool:
        """Whether images stay as they are."""
        return not any(value for name, value in vars(self).items() if name != "fill")

    @staticmethod
    def draws(count: int, seed: int, epoch: int) -> Tensor:
        """Uniform chances for each of `count` images in an epoch, 0 to 1, shape (count, 16)."""
        return torch.from_numpy(np.random.default_rng((seed, epoch, 1)).random((count, _COLUMNS), np.float32))

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change a batch.

        Args:
            images: (n, 3, side, side), uint8.
            draws: their rows of `draws`, on the same device.

        Returns:
            Of the same shape, 0 to 255; uint8 where nothing but flips and quarter turns is done.
        """
        images = flips_and_turns(images, draws, self.flips, self.turns)
        if self.rotation or self.shift or self.zoom or self.shear:
            images = self._moved(images.float(), draws)
        if self.stain:
            images = stained(images.float(), self.stain, draws[:, 10:16])
        if self.brightness:
            gain = 1 + self.brightness * (2 * draws[:, 9] - 1)
            images = (images.float() * gain[:, None, None, None]).clamp(0, 255)
        return images

    def _moved(self, images: Tensor, draws: Tensor) -> Tensor:
        """Rotated, shifted, zoomed and sheared, in one interpolation."""
        from kornia.geometry.transform import get_affine_matrix2d, warp_affine

        side = images.shape[-1]
        between = 2 * draws - 1
        matrix = get_affine_matrix2d(
            translations=between[:, 3:5] * self.shift * side,
            center=torch.full((len(images), 2), (side - 1) / 2, device=images.device),
            scale=(1 + between[:, 5:6] * self.zoom).expand(-1, 2),
            angle=between[:, 6] * self.rotation,
            sx=torch.atan(between[:, 7] * self.shear),
            sy=torch.atan(between[:, 8] * self.shear),
        )
        return warp_affine(images, matrix[:, :2], (side, side), padding_mode=self.fill, align_corners=False)


def flips_and_turns(images: Tensor, draws: Tensor, flips: bool = True, turns: bool = True) -> Tensor:
    """Each image mirrored and turned by quarters at random, exactly: a smear has no up or down.

    Args:
        images: (n, channels, side, side).
        draws: (n, 3 or more), 0 to 1: mirrored left to right, top to bottom, and over the diagonal below 0.5.
        flips: whether the first two are done.
        turns: whether the third is done; without flips, quarter turns without a mirror.
    """
    yes = (draws[:, :3] < 0.5)[:, :, None, None, None]
    if flips:
        images = torch.where(yes[:, 0], images.flip(-1), images)
        images = torch.where(yes[:, 1], images.flip(-2), images)
        return torch.where(yes[:, 2], images.transpose(-1, -2), images) if turns else images
    if turns:  # by 180° and by 90°, each or not: all four quarters
        images = torch.where(yes[:, 0], images.flip(-1, -2), images)
        images = torch.where(yes[:, 1], images.transpose(-1, -2).flip(-1), images)
    return images


def stained(images: Tensor, spread: float, draws: Tensor) -> Tensor:
    """The strength of each stain changed, in absorbance (Tellez et al. 2018, eq. 1: s' = a s + b).

    Args:
        images: (n, 3, h, w), 0 to 255.
        spread: a is from 1 − 2 spread to 1 + 2 spread, b from −spread / 5 to spread / 5.
        draws: (n, 6), 0 to 1, of a and b for haematoxylin, eosin and the rest.
    """
    stains = torch.tensor(STAINS, dtype=torch.float32, device=images.device)
    stains = stains / stains.norm(dim=1, keepdim=True)
    gain = 1 + 2 * spread * (2 * draws[:, :3] - 1)
    offset = spread / 5 * (2 * draws[:, 3:] - 1)
    mixing = torch.linalg.inv(stains) @ (gain[:, :, None] * stains)  # absorbance → stains, changed → absorbance
    absorbance = -torch.log((images + 1) / 256).flatten(2)
    changed = mixing.transpose(1, 2) @ absorbance + (offset @ stains)[:, :, None]
    return (256 * torch.exp(-changed) - 1).clamp(0, 255).view_as(images)
