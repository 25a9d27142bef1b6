"""CBAM: channel, then spatial attention (Woo et al. 2018), after a backbone or inside it.

timm's module is the authors' when its shared MLP has biases; reduction 16, kernel 7×7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers.cbam import CbamModule
from torch import nn

from wbctool.errors import UsageProblem
from wbctool.modeling import layout

REDUCTION = 16
OPEN = 4.0  # logit of a gate that lets 98 % through


def cbam(channels: int) -> CbamModule:
    """CBAM for maps (n, channels, h, w), the same shape out (Woo et al. 2018, equations 1 to 3).

    A channel gate from one MLP (channels → channels/16 → channels, ReLU, with biases) over average and maximum
    pooling, then a 7×7 convolution over the maps' mean and maximum across channels; gates lie in 0 to 1.
    """
    return CbamModule(channels, rd_ratio=1 / REDUCTION, mlp_bias=True)


class InsideAttention(nn.ModuleDict):
    """CBAM after each of several modules of a backbone, by hooks: its own tensors keep their names.

    Its gates start open, so that a pretrained backbone at first computes what it was trained to.

    Args:
        backbone: the network; it is changed.
        name: its name, for errors.
        places: names of the modules.
        probe: runs the backbone once.

    Raises:
        UsageProblem: a module does not give a feature map.
    """

    def __init__(self, backbone: nn.Module, name: str, places: list[str], probe: Callable[[], object]) -> None:
        super().__init__()
        for place, shape in layout.shapes(backbone, places, probe).items():
            if len(shape) != 4:
                raise no_maps(name)
            module = cbam(shape[1])
            bias = module.channel.fc2.bias
            assert bias is not None  # `mlp_bias`
            nn.init.constant_(bias, OPEN / 2)  # once for the average, once for the maximum
            nn.init.constant_(module.spatial.conv.bn.bias, OPEN)
            self[place.replace(".", "_")] = module
            backbone.get_submodule(place).register_forward_hook(self._hook(place.replace(".", "_")))

    def _hook(self, key: str) -> Callable[[nn.Module, object, torch.Tensor], torch.Tensor]:
        def attend(_module: nn.Module, _given: object, maps: torch.Tensor) -> torch.Tensor:
            return self[key](maps)

        return attend


def inside(backbone: nn.Module, name: str, at: str, probe: Callable[[], object]) -> InsideAttention:
    """CBAM at `stages` or `blocks` of a backbone.

    Args:
        backbone: the network; it is changed.
        name: its name.
        at: `stages` or `blocks`.
        probe: runs the backbone once on a blank image, so that maps are known.

    Raises:
        UsageProblem: the backbone has no such parts, or no feature maps there.
    """
    places = layout.stages(backbone, name) if at == "stages" else layout.blocks(backbone, name)
    return InsideAttention(backbone, name, places, probe)


def no_maps(name: str) -> UsageProblem:
    """The error of a backbone that has no feature maps."""
    return UsageProblem(f"--attention cbam needs a convolutional backbone; {name} has none: give --attention none")
