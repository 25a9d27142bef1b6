"""Augmentation of whole batches on the device; images are (n, 3, side, side), 0 to 255.

All random numbers are drawn beforehand, one row for each image of an epoch, so that an image is changed in the same
way whatever its batch, process or machine.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wbctool.imaging.colour import STAINS
from wbctool.training.recipe import PRESETS, Recipe

_COLUMNS = 16  # random numbers of an image


class Augmentation:
    """The augmentation of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        preset = PRESETS[recipe.augment]

        def amount(name: str) -> float:
            value = getattr(recipe, name)
            return float(preset.get(name, 0.0) if value is None else value)

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
        """Return uniform random numbers for each of `count` images in an epoch, 0 to 1, shape (count, 16)."""
        return torch.from_numpy(np.random.default_rng((seed, epoch, 1)).random((count, _COLUMNS), np.float32))

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Augment images (n, 3, side, side), uint8, by their rows of `draws`; only flips and turns leave them uint8."""
        images = flips_and_turns(images, draws, self.flips, self.turns)
        if self.rotation or self.shift or self.zoom or self.shear:
            shifts = 2 * self.shift * (2 * draws[:, 3:5] - 1)
            images = warp(images.float(), self._inverse_matrices(draws), shifts, self.fill)
        if self.stain:
            images = change_stains(images.float(), self.stain, draws[:, 10:16])
        if self.brightness:
            gain = 1 + self.brightness * (2 * draws[:, 9] - 1)
            images = (images.float() * gain[:, None, None, None]).clamp(0, 255)
        return images

    def _inverse_matrices(self, draws: Tensor) -> Tensor:
        """The inverse of shear, rotation and zoom about the centre, for the images of these draws, (n, 2, 2)."""
        between = 2 * draws - 1
        shear_x, shear_y = -self.shear * between[:, 7], -self.shear * between[:, 8]
        shear = torch.stack([1 + shear_x * shear_y, -shear_x, -shear_y, torch.ones_like(shear_x)], 1)
        angle = torch.deg2rad(self.rotation * between[:, 6])
        rotation = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1)
        zoom = 1 + self.zoom * between[:, 5]
        return shear.view(-1, 2, 2) @ rotation.view(-1, 2, 2) / zoom[:, None, None]


def warp(images: Tensor, inverse: Tensor, shifts: Tensor, fill: str) -> Tensor:
    """Transform images (n, channels, side, side), float, about their centre, in one bilinear interpolation.

    `inverse` (n, 2, 2) is that of the matrix which multiplies a point's (x, y) from the centre; `shifts` (n, 2), in
    halves of the side, are added then. `fill` is what is moved in: `reflection` or `border`.
    """
    theta = torch.cat([inverse, -inverse @ shifts[:, :, None]], 2)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode=fill, align_corners=False)


def flips_and_turns(images: Tensor, draws: Tensor, flips: bool = True, turns: bool = True) -> Tensor:
    """Mirror images (n, channels, side, side) and turn them by quarters at random, exactly: a smear has no up or down.

    Where the first three `draws` (n, 3 or more), 0 to 1, are below 0.5, an image is mirrored left to right, top to
    bottom, and over the diagonal. Without `turns` the last is left out; without `flips` there are quarter turns without
    a mirror.
    """
    chosen = (draws[:, :3] < 0.5)[:, :, None, None, None]
    if flips:
        images = torch.where(chosen[:, 0], images.flip(-1), images)
        images = torch.where(chosen[:, 1], images.flip(-2), images)
        return torch.where(chosen[:, 2], images.transpose(-1, -2), images) if turns else images
    if turns:  # by 180° and by 90°, each or not: all four quarters
        images = torch.where(chosen[:, 0], images.flip(-1, -2), images)
        images = torch.where(chosen[:, 1], images.transpose(-1, -2).flip(-1), images)
    return images


def change_stains(images: Tensor, spread: float, draws: Tensor) -> Tensor:
    """Change the strength of each stain of images (n, 3, h, w), 0 to 255, in absorbance (Tellez et al. 2018, eq. 1).

    s' = a s + b, with a from 1 − 2 `spread` to 1 + 2 `spread` and b from −`spread` / 5 to `spread` / 5; `draws` (n, 6),
    0 to 1, are those of a and b for haematoxylin, eosin and the rest.
    """
    stains = torch.tensor(STAINS, dtype=torch.float32, device=images.device)
    stains = stains / stains.norm(dim=1, keepdim=True)
    gain = 1 + 2 * spread * (2 * draws[:, :3] - 1)
    offset = spread / 5 * (2 * draws[:, 3:] - 1)
    mixing = torch.linalg.inv(stains) @ (gain[:, :, None] * stains)  # absorbance → stains, changed → absorbance
    absorbance = -torch.log((images + 1) / 256).flatten(2)
    changed = mixing.transpose(1, 2) @ absorbance + (offset @ stains)[:, :, None]
    return (256 * torch.exp(-changed) - 1).clamp(0, 255).view_as(images)
