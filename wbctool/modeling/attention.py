"""CBAM: channel, then spatial attention (Woo et al. 2018), after a backbone or inside it.

timm's module is the authors' when its shared MLP has biases; reduction 16, kernel 7×7.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from wbctool.errors import UsageProblem
from wbctool.modeling import layout

REDUCTION = 16
OPEN = 4.0  # logit of a gate that lets 98 % through


def cbam(channels: int) -> CbamModule:
    """Return CBAM for maps (n, channels, h, w), the same shape out (Woo et al. 2018, equations 1 to 3).

    A channel gate from one MLP (channels → channels/16 → channels, ReLU, with biases) over average and maximum
    pooling, then a 7×7 convolution over the maps' mean and maximum across channels; gates lie in 0 to 1.
    """
    return CbamModule(channels, rd_ratio=1 / REDUCTION, mlp_bias=True)


class InsideAttention(nn.ModuleDict):
    """CBAM after each of several modules of a backbone, by hooks: the backbone's tensors keep their names.

    The modules are its `stages` or `blocks`. The gates start open, so that a pretrained backbone at first computes what
    it was trained to. `probe` runs it once on a blank image. Raises UsageProblem where stages or blocks are unknown, or
    give no feature maps.
    """

    def __init__(self, backbone: nn.Module, name: str, at: str, probe: Callable[[], object]) -> None:
        super().__init__()
        modules = layout.stages(backbone, name) if at == "stages" else layout.blocks(backbone, name)
        for module, shape in layout.output_shapes(backbone, modules, probe).items():
            if len(shape) != 4:
                raise no_feature_maps(name)
            attention = cbam(shape[1])
            bias = attention.channel.fc2.bias
            assert bias is not None  # `mlp_bias`
            nn.init.constant_(bias, OPEN / 2)  # once for the average, once for the maximum
            nn.init.constant_(attention.spatial.conv.bn.bias, OPEN)
            self[module.replace(".", "_")] = attention
            # not a closure: a deep copy of the model copies what a partial holds, and so runs its own attention
            backbone.get_submodule(module).register_forward_hook(partial(_attend, attention))


def _attend(attention: CbamModule, _module: nn.Module, _inputs: object, maps: Tensor) -> Tensor:
    return attention(maps)


def no_feature_maps(name: str) -> UsageProblem:
    """Return the error for a backbone without feature maps."""
    return UsageProblem(f"--attention cbam needs a convolutional backbone; {name} has none: give --attention none")
