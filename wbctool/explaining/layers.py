"""The layers that are explained: their names, the default ones, and their outputs as feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from wbctool.errors import UsageProblem
from wbctool.modeling import layout
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.ensembles import AverageEnsemble
from wbctool.modeling.model_types import Model

MAX_PREFIX_TOKENS = 8  # class, distillation and register tokens, which precede those of the image


def default_layers(model: Model) -> list[str]:
    """Return the last layer with a feature map: the input of pooling, after CBAM where it follows the backbone.

    For a transformer it is the first normalization of the last block, as only the class token of its last layer gets a
    gradient. For an average ensemble it is one layer of each member, for a CBAM ensemble its attention.
    """
    if isinstance(model, Classifier):
        return [_last_map(model)]
    if isinstance(model, AverageEnsemble):
        members = enumerate(model.members)
        return [f"members.{number}.{_last_map(member)}" for number, member in members if isinstance(member, Classifier)]
    return ["attention"]


def _last_map(model: Classifier) -> str:
    backbone = model.backbone
    last, outputs = _layer_outputs(model)
    if last.ndim == 3:
        norms = [name for name in outputs if name.endswith(".norm1")]
        if norms:
            return norms[-1]
    if not isinstance(model.attention, nn.Identity) and last.shape[2:].numel() > 1:
        return "attention"
    if last.ndim == 4 and last.shape[2:].numel() == 1:  # of a small image only an earlier stage has positions
        stages = layout.known_stages(backbone, model.architecture.backbone)
        maps = [outputs[stage] for stage in stages if outputs[stage].shape[2:].numel() > 1]
        last = maps[-1] if maps else last
    names = [name for name, output in outputs.items() if output is last]
    if not names:
        raise UsageProblem(f"{model.architecture.backbone}: its last feature map is not known; give --layer NAME")
    return min(names, key=lambda name: name.count("."))


def _layer_outputs(model: Classifier) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what the backbone makes of a black image, and the output of each of its layers."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _input: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs[name] = output

    backbone = model.backbone
    size, device = model.architecture.size, next(backbone.parameters()).device
    with torch.no_grad(), ExitStack() as hooks:
        for name, layer in backbone.named_modules():
            if name:
                hooks.enter_context(layer.register_forward_hook(partial(keep, name)))
        return backbone.forward_features(torch.zeros(1, 3, size, size, device=device)), outputs


def select_layers(model: Model, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return layers by name; the default ones where no names are given.

    A name is that in the backbone (`layer4`) or in the model (`attention`). Where both have a name, it is the model's;
    `backbone.head` is the other. In an ensemble a name begins with the member: `members.0.layer4`.
    """
    full_names = {name: module for name, module in model.named_modules() if name}
    layers = {"".join(name.split("backbone.", 1)): module for name, module in full_names.items()} | full_names
    for name in names:
        if name not in layers:
            raise UsageProblem(f"--layer {name}: no such layer; {_suggestions(name, model)}")
    return {name: layers[name] for name in names or default_layers(model)}


def _suggestions(name: str, model: Model) -> str:
    """Name the layers of backbones with similar names; without any, those that end stages."""
    full_names = [full for full, _ in model.named_modules() if "backbone." in full]
    short_names = ["".join(full.split("backbone.", 1)) for full in full_names]
    similar = get_close_matches(name, short_names, n=6, cutoff=0.5)
    if similar:
        return f"near it: {', '.join(similar)}"
    is_ensemble = hasattr(model, "members")
    ends = [
        f"members.{number}.{stage}" if is_ensemble else stage
        for number, member in enumerate(getattr(model, "members", [model]))
        for stage in layout.known_stages(member.backbone, member.architecture.backbone)
    ]
    return f"among its layers: {', '.join(ends[-8:] or short_names[-8:])}"


def as_feature_map(output: Tensor, layer: str, model: Model) -> Tensor:
    """Return a layer's output as feature maps (n, channels, h, w): tokens in their grid, channels second."""
    if output.ndim == 3:
        tokens = output.shape[1]
        for prefix in (_backbone_trait(model, layer, "num_prefix_tokens", 0), tokens - isqrt(tokens) ** 2):
            side = isqrt(max(tokens - prefix, 0))
            if side * side == tokens - prefix and side > 1 and prefix <= MAX_PREFIX_TOKENS:
                return output[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    elif output.ndim == 4:
        channels_last = _backbone_trait(model, layer, "output_fmt", "NCHW") == "NHWC"
        if channels_last and output.shape[1] == output.shape[2]:
            output = output.permute(0, 3, 1, 2)
        if output.shape[2] * output.shape[3] > 1:
            return output
    shape = " × ".join(map(str, output.shape[1:])) or "one number"
    raise UsageProblem(f"--layer {layer}: gives {shape} for an image, which is no map; give an earlier layer")


def _backbone_trait(model: Model, layer: str, trait: str, default: Any) -> Any:
    """Return an attribute of the backbone that a layer belongs to."""
    names = layer.split(".")
    is_member = names[0] == "members" and not isinstance(model, Classifier)
    owner = model.get_submodule(f"members.{names[1]}") if is_member else model
    return getattr(getattr(owner, "backbone", None), trait, default)
