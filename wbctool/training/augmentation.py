"""Augmentation of whole batches on the device; images are (n, 3, h, w), 0 to 255."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wbctool.errors import UsageProblem

AUGMENTATIONS = ("none", "flips", "full")


def flips_and_turns(images: Tensor) -> Tensor:
    """Each image mirrored and turned by quarters at random: a smear has no up or down.

    Draws from torch's global generator. Images must be square.
    """
    choice = torch.randint(0, 8, (len(images),))
    out = torch.empty_like(images)
    for number in range(8):
        index = torch.nonzero(choice == number)[:, 0].to(images.device)
        if len(index) == 0:
            continue
        part = images[index]
        if number & 1:
            part = part.flip(-1)
        if number & 2:
            part = part.flip(-2)
        if number & 4:
            part = part.transpose(-1, -2)
        out[index] = part
    return out


def make_augmentation(name: str) -> Callable[[Tensor], Tensor]:
    """The augmentation by its name.

    `full` follows the attentive-CNN paper, section 2.4: rotation to 30°, shift to 10 %, zoom 0.8 to
    1.2, shear 5 %, brightness 0.8 to 1.2, gaps filled by reflection; flips and quarter turns first.

    Raises:
        UsageProblem: an unknown name.
    """
    if name == "none":
        return lambda images: images
    if name == "flips":
        return flips_and_turns
    if name != "full":
        raise UsageProblem(f"--augment {name}: choose from {', '.join(AUGMENTATIONS)}")
    from kornia.augmentation import RandomAffine

    shear = 2.862  # degrees: arctan(0.05)
    affine = RandomAffine(
        30.0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=(-shear, shear, -shear, shear),
        padding_mode="reflection", p=1.0,
    )  # fmt: skip

    def full(images: Tensor) -> Tensor:
        moved = affine(flips_and_turns(images).float())
        gain = torch.empty(len(images), 1, 1, 1).uniform_(0.8, 1.2).to(images.device)
        return (moved * gain).clamp(0, 255)

    return full
