"""The small network of the Naturalize paper (its Figure 9), with the interface of a timm model."""

from __future__ import annotations

import torch
from torch import nn

NAME = "custom-cnn"
WIDTHS = (16, 32, 64, 128)
DENSE = 128


class CustomCnn(nn.Module):
    """Four times convolution 3×3, ReLU and 2×2 pooling, then a dense layer of 128; of the Naturalize paper, Figure 9.

    It has the interface of a timm model. The shape of the dense layer depends on the size of the input, in pixels, of
    which ValueError refuses less than 16.
    """

    num_features = DENSE

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 2 ** len(WIDTHS):
            raise ValueError(f"an input of {size} pixels is too small for its four poolings")
        self.stages = nn.Sequential()
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            convolution = nn.Conv2d(before, after, 3, padding=1)
            self.stages.append(nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(2)))
        self.dense = nn.Linear(WIDTHS[-1] * (size // 2 ** len(WIDTHS)) ** 2, DENSE)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return feature maps (n, 128, size / 16, size / 16)."""
        return self.stages(images)

    def forward_head(self, maps: torch.Tensor, pre_logits: bool = True) -> torch.Tensor:
        """Return vectors (n, 128); there is no last layer, so `pre_logits` changes nothing."""
        return torch.relu(self.dense(maps.flatten(1)))
