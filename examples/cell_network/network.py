"""The cell network: a U-Net on the first stages of MobileNetV2, small enough for one core.

For an RGB image of any size that `STRIDE` divides it gives, at half of that size, logits of the five classes and of the
depth in the cell: 0 at its border, 1 in its middle.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 16
CHANNELS = (16, 24, 32, 96)  # of MobileNetV2's stages at strides 2, 4, 8 and 16
WIDTHS = (24, 32, 48, 96)  # of the decoder at the same strides
OUTPUTS = 6


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """A depthwise 3 × 3 and a pointwise convolution, each with batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class CellNetwork(nn.Module):
    """See the module."""

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        self.encoder = timm.create_model("mobilenetv2_100", features_only=True, out_indices=(0, 1, 2, 3))
        if weights:
            self.encoder.load_state_dict(load_file(weights), strict=False)
        self.lateral = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(CHANNELS, WIDTHS, strict=True))
        self.merge = nn.ModuleList(separable(w + deeper, w) for w, deeper in pairwise(WIDTHS))
        self.context = nn.Sequential(separable(WIDTHS[-1], WIDTHS[-1]), separable(WIDTHS[-1], WIDTHS[-1]))
        self.head = nn.Sequential(nn.Conv2d(WIDTHS[0], 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, OUTPUTS, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, 6, height / 2, width / 2) of images (n, 3, height, width), RGB, 0 to 255."""
        features = self.encoder(image / 64.0 - 2.0)
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        deep = self.context(levels[-1])
        for level, merge in reversed(list(zip(levels, self.merge, strict=False))):
            deep = functional.interpolate(deep, scale_factor=2.0, mode="nearest")
            deep = merge(torch.cat([level, deep], dim=1))
        return self.head(deep)


def export(network: CellNetwork, file: Path) -> None:
    """Write the network as ONNX, in float32."""
    network.eval()
    image = torch.zeros(1, 3, 224, 224)
    axes = {"image": {2: "height", 3: "width"}, "logits": {2: "half_height", 3: "half_width"}}
    torch.onnx.export(
        network,
        (image,),
        str(file),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
