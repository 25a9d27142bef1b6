"""The stages and blocks of a backbone, and its layers in the order of execution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from wbctool.errors import UsageProblem
from wbctool.modeling.architecture import CUSTOM_CNN

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
    """Return the names of the modules that end each stage, shallow first; UsageProblem where they are unknown.

    A stage is what the family's paper calls one: `layer1`… of ResNets, `blocks.0`… of EfficientNets and MobileNets,
    dense blocks of DenseNets, convolutions up to a pooling of VGGs, else where timm's `feature_info` says that the
    resolution is about to halve.
    """
    for holder in ("blocks", "stages"):
        if isinstance(getattr(backbone, holder, None), nn.Sequential):
            return [f"{holder}.{number}" for number in range(len(getattr(backbone, holder)))]
    info = [row["module"] for row in getattr(backbone, "feature_info", [])]
    ends = [module for module in info if module not in _STEMS]
    if ends and isinstance(backbone.get_submodule(ends[-1]), nn.MaxPool2d):
        ends.pop()  # of a VGG, after its last stage
    if not ends:
        raise UsageProblem(f"--backbone {name}: its stages are not known; give --attention-at head, --unfreeze all")
    return ends


def known_stages(backbone: nn.Module, name: str) -> list[str]:
    """Return what `stages` does; an empty list where the stages are unknown."""
    with suppress(UsageProblem):
        return stages(backbone, name)
    return []


def output_shapes(backbone: nn.Module, modules: list[str], probe: Callable[[], object]) -> dict[str, torch.Size]:
    """Return the output shapes of modules by name, in the order of execution; `probe` runs the backbone once."""
    shapes: dict[str, torch.Size] = {}

    def note_shape(name: str, _module: nn.Module, _inputs: object, maps: torch.Tensor) -> None:
        shapes[name] = maps.shape

    with _hooks(backbone, {name: partial(note_shape, name) for name in modules}):
        probe()
    return shapes


@contextmanager
def _hooks(backbone: nn.Module, hooks: Mapping[str, Callable[[nn.Module, Any, Any], None]]) -> Iterator[None]:
    """Context in which modules, by name, have forward hooks."""
    handles = [backbone.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def blocks(backbone: nn.Module, name: str) -> list[str]:
    """Return the names of the units that the family repeats, shallow first; UsageProblem where they are unknown.

    Residual blocks, MBConv and similar ones, dense layers, Inception modules; of a VGG each activation; else the
    children of each stage.
    """
    units = [unit for unit, module in backbone.named_modules() if type(module).__name__ in _BLOCKS]
    if units:
        return [unit for unit in units if not any(unit.startswith(f"{other}.") for other in units)]
    if name.startswith("vgg"):
        layers = backbone.get_submodule("features").named_children()
        return [f"features.{child}" for child, module in layers if isinstance(module, nn.ReLU)]
    ends = stages(backbone, name)
    children = [f"{end}.{child}" for end in ends for child, _ in backbone.get_submodule(end).named_children()]
    return children if children and name != CUSTOM_CNN else ends


class _Recorder(TorchDispatchMode):
    """Records each layer that is executed, with the parameters it takes."""

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
            pointers = (value.untyped_storage().data_ptr() for value in tensors)
            self.layers.append([self.names[pointer] for pointer in pointers if pointer in self.names])
        return function(*args, **(kwargs or {}))


@dataclass(frozen=True)
class ExecutionOrder:
    """The layers of a backbone in the order of execution, as Keras counts them.

    `layers` has the names of the parameters that each layer takes, often none; `ends` how many layers have been
    executed at the end of each stage, by the name of the module that ends it.
    """

    layers: list[list[str]]
    ends: dict[str, int]

    @classmethod
    @torch.no_grad()
    def of(cls, backbone: nn.Module, name: str, probe: Callable[[], object]) -> ExecutionOrder:
        """Return the order of a backbone that `probe` runs once."""
        names = {tensor.untyped_storage().data_ptr(): key for key, tensor in backbone.named_parameters()}
        recorder = _Recorder(names)
        ends: dict[str, int] = {}

        def mark_end(stage: str, _module: nn.Module, _inputs: object, _maps: object) -> None:
            ends[stage] = len(recorder.layers)

        hooks = {stage: partial(mark_end, stage) for stage in known_stages(backbone, name)}
        was_training = backbone.training
        backbone.eval()
        try:
            with _hooks(backbone, hooks), recorder:
                probe()
        finally:
            backbone.train(was_training)
        return cls(recorder.layers, ends)


def trained_names(backbone: nn.Module, name: str, order: ExecutionOrder, rule: str) -> set[str]:
    """Return the names of the backbone's parameters that an `--unfreeze` rule lets learn.

    `all`; `none`; `last:80`, those of the last 80 layers in the order of execution, whether these have parameters or
    not, as in Keras; `last:60%`, those of that percentage of the layers; `stages:2`, those of the last two stages and
    of what follows them. Raises UsageProblem where the rule is unknown, or asks for more than the backbone has.
    """
    kind, _, text = rule.partition(":")
    count = int(text.removesuffix("%")) if text.removesuffix("%").isdecimal() else 0
    if rule in ("all", "none"):
        return {parameter for parameter, _ in backbone.named_parameters()} if rule == "all" else set()
    is_percentage = kind == "last" and text.endswith("%")
    if kind not in ("last", "stages") or count < 1 or (text.endswith("%") and not is_percentage):
        raise UsageProblem(f"--unfreeze {rule}: choose from all, none, last:N (layers), last:N%, stages:N")
    if is_percentage:
        count = round(min(count, 100) / 100 * len(order.layers))
    if kind == "stages":
        stages(backbone, name)
        starts = [0, *order.ends.values()][: len(order.ends)]
    available = len(order.layers) if kind == "last" else len(starts)
    if count > available:
        unit = "layers" if kind == "last" else "stages"
        raise UsageProblem(f"--unfreeze {rule}: {name} has {available} {unit}; give all, or fewer")
    start = len(order.layers) - count if kind == "last" else starts[-count]
    return {parameter for layer in order.layers[start:] for parameter in layer}
