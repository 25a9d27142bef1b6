"""Where the parts of a backbone are: its stages, its blocks, its layers in the order of execution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from wbctool.errors import UsageProblem

_STEMS = ("act1", "bn1", "features.norm0")
# the unit that each family repeats
_BLOCKS = (
    *("BasicBlock", "Bottleneck", "ConvNeXtBlock", "DenseLayer"),
    *("ConvBnAct", "DepthwiseSeparableConv", "InvertedResidual", "EdgeResidual", "UniversalInvertedResidual"),
    *("InceptionA", "InceptionB", "InceptionC", "InceptionD", "InceptionE"),
)
# what is counted as a layer, as Keras counts: no reshaping, no copying
_LAYERS = (
    *("convolution", "addmm", "mm", "bmm", "linear", "scaled_dot_product"),
    *("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "native_layer_norm", "native_group_norm"),
    *("relu", "gelu", "silu", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh", "leaky_relu", "softmax"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax"),
    *("add", "mul", "cat"),
)


def stages(backbone: nn.Module, name: str) -> list[str]:
    """Names of the modules that end each stage, shallow first.

    A stage is what the family's paper calls one: `layer1`… of ResNets, `blocks.0`… of EfficientNets and
    MobileNets, dense blocks of DenseNets, convolutions up to a pooling of VGGs, else where timm's
    `feature_info` says that the resolution is about to halve.

    Raises:
        UsageProblem: the backbone has none.
    """
    for holder in ("blocks", "stages"):
        if isinstance(getattr(backbone, holder, None), nn.Sequential):
            return [f"{holder}.{number}" for number in range(len(getattr(backbone, holder)))]
    info = [row["module"] for row in getattr(backbone, "feature_info", [])]
    found = [module for module in info if module not in _STEMS]
    if found and isinstance(backbone.get_submodule(found[-1]), nn.MaxPool2d):
        found.pop()  # of a VGG, after its last stage
    if not found:
        raise UsageProblem(f"--backbone {name}: its stages are not known; give --attention-at head, --unfreeze all")
    return found


def known_stages(backbone: nn.Module, name: str) -> list[str]:
    """The same; none where the backbone has none."""
    try:
        return stages(backbone, name)
    except UsageProblem:
        return []


def shapes(backbone: nn.Module, places: list[str], probe: Callable[[], object]) -> dict[str, torch.Size]:
    """The shapes of what the modules at some places give, in the order of execution.

    Args:
        backbone: the network.
        places: names of its modules.
        probe: runs it once.
    """
    found: dict[str, torch.Size] = {}

    def watch(place: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def note(_module: nn.Module, _given: object, maps: torch.Tensor) -> None:
            found[place] = maps.shape

        return note

    handles = [backbone.get_submodule(place).register_forward_hook(watch(place)) for place in places]
    try:
        probe()
    finally:
        for handle in handles:
            handle.remove()
    return found


def blocks(backbone: nn.Module, name: str) -> list[str]:
    """Names of the units that the family repeats, shallow first.

    Residual blocks, MBConv and their like, dense layers, Inception modules; of a VGG each activation;
    else the parts of each stage.

    Raises:
        UsageProblem: the backbone has none.
    """
    found = [module for module, part in backbone.named_modules() if type(part).__name__ in _BLOCKS]
    if found:
        return [one for one in found if not any(one.startswith(f"{other}.") for other in found)]
    if name.startswith("vgg"):
        layers = backbone.get_submodule("features").named_children()
        return [f"features.{child}" for child, part in layers if isinstance(part, nn.ReLU)]
    ends = stages(backbone, name)
    parts = [f"{end}.{child}" for end in ends for child, _ in backbone.get_submodule(end).named_children()]
    return parts if parts and name != "custom-cnn" else ends


class _Recorder(TorchDispatchMode):
    """Notes each layer that is executed, with the parameters it takes."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.layers: list[list[str]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = function._schema.name.removeprefix("aten::")
        if any(name.strip("_").startswith(layer.strip("_")) for layer in _LAYERS):
            tensors = [value for value in args if isinstance(value, torch.Tensor)]
            places = (value.untyped_storage().data_ptr() for value in tensors)
            self.layers.append([self.names[place] for place in places if place in self.names])
        return function(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Order:
    """What a backbone executes, in order.

    A layer is a convolution, matrix product, normalisation, activation, pooling, addition,
    multiplication or concatenation, as Keras counts them.

    Attributes:
        layers: of each layer the names of the parameters it takes, often none.
        ends: of each stage, by the name of the module that ends it, how many layers have been executed.
    """

    layers: list[list[str]]
    ends: dict[str, int]

    @classmethod
    @torch.no_grad()
    def of(cls, backbone: nn.Module, name: str, call: Callable[[], object]) -> Order:
        """Of a backbone that a call runs once."""
        names = {p.untyped_storage().data_ptr(): parameter for parameter, p in backbone.named_parameters()}
        recorder, ends, handles = _Recorder(names), {}, []
        for stage in known_stages(backbone, name):

            def mark(_module: nn.Module, _given: object, _maps: object, stage: str = stage) -> None:
                ends[stage] = len(recorder.layers)

            handles.append(backbone.get_submodule(stage).register_forward_hook(mark))
        was_training = backbone.training
        backbone.eval()
        try:
            with recorder:
                call()
        finally:
            backbone.train(was_training)
            for handle in handles:
                handle.remove()
        return cls(recorder.layers, ends)


def trained_names(backbone: nn.Module, name: str, order: Order, rule: str) -> set[str]:
    """Names of the backbone's parameters that an `--unfreeze` rule lets learn.

    `all`; `none`; `last:80`, those of the last 80 layers in the order of execution, whether they have
    parameters or not, as in Keras; `last:60%`, of that share of them; `stages:2`, those of the last two
    stages and whatever follows.

    Args:
        backbone: the network.
        name: its name, for errors.
        order: of its execution.
        rule: the rule.

    Raises:
        UsageProblem: no such rule, or more than the backbone has.
    """
    kind, _, text = rule.partition(":")
    count = int(text.removesuffix("%")) if text.removesuffix("%").isdecimal() else 0
    if rule in ("all", "none"):
        return {parameter for parameter, _ in backbone.named_parameters()} if rule == "all" else set()
    is_share = kind == "last" and text.endswith("%")
    if kind not in ("last", "stages") or count < 1 or (text.endswith("%") and not is_share):
        raise UsageProblem(f"--unfreeze {rule}: choose from all, none, last:N (layers), last:N%, stages:N")
    if is_share:
        count = round(min(count, 100) / 100 * len(order.layers))
    if kind == "stages":
        stages(backbone, name)
        starts = [0, *order.ends.values()][: len(order.ends)]
    has = len(order.layers) if kind == "last" else len(starts)
    if count > has:
        parts = "layers" if kind == "last" else "stages"
        raise UsageProblem(f"--unfreeze {rule}: {name} has {has} {parts}; give all, or fewer")
    start = len(order.layers) - count if kind == "last" else starts[-count]
    return {parameter for layer in order.layers[start:] for parameter in layer}
