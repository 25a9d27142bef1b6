"""The layers whose maps are explained: their names, which are taken by default, and tokens as maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from math import isqrt

import torch
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from wbctool.errors import UsageProblem
from wbctool.modeling import layout
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.ensembles import AverageEnsemble
from wbctool.modeling.model_types import Model

MOST_PREFIX_TOKENS = 8  # class, distillation and register tokens, which stand before those of the image


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer by the name `--layer` takes: as in the backbone (`layer4`) or as in the model (`attention`).

    Where both have a name, it is the model's; `backbone.head` is the other. Of an ensemble each begins with its
    member: `members.0.layer4`.
    """
    whole = {name: module for name, module in model.named_modules() if name}
    short = {"".join(name.split("backbone.", 1)): module for name, module in whole.items()}
    return {**short, **whole}


def default_layers(model: Model) -> list[str]:
    """The last layer that still has a map: what pooling sees, attended where there is CBAM after the backbone.

    Of a transformer the first normalisation of its last block, as its last layer's gradient reaches
    only the class token. Of an average ensemble one for each member, of a CBAM ensemble its attention.

    Raises:
        UsageProblem: none is known.
    """
    if isinstance(model, Classifier):
        return [_last_map(model)]
    if isinstance(model, AverageEnsemble):
        members = enumerate(model.members)
        return [f"members.{number}.{_last_map(member)}" for number, member in members if isinstance(member, Classifier)]
    return ["attention"]


def _last_map(model: Classifier) -> str:
    outputs: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def note(_module: nn.Module, _given: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs[name] = output

        return note

    backbone = model.backbone
    handles = [part.register_forward_hook(watch(name)) for name, part in backbone.named_modules() if name]
    size, device = model.architecture.size, next(backbone.parameters()).device
    try:
        with torch.no_grad():
            last = backbone.forward_features(torch.zeros(1, 3, size, size, device=device))
    finally:
        for handle in handles:
            handle.remove()
    if last.ndim == 3:
        norms = [name for name in outputs if name.endswith(".norm1")]
        if norms:
            return norms[-1]
    if not isinstance(model.attention, nn.Identity) and last.shape[2:].numel() > 1:
        return "attention"
    if last.ndim == 4 and last.shape[2:].numel() == 1:  # a small image: an earlier stage still has places
        stages = layout.known_stages(backbone, model.architecture.backbone)
        maps = [outputs[stage] for stage in stages if outputs[stage].shape[2:].numel() > 1]
        last = maps[-1] if maps else last
    given = [name for name, output in outputs.items() if output is last]
    if not given:
        raise UsageProblem(f"{model.architecture.backbone}: its last feature map is not known; give --layer NAME")
    return min(given, key=lambda name: name.count("."))


def chosen(model: Model, wanted: Sequence[str]) -> dict[str, nn.Module]:
    """Layers by name; without any the default ones.

    Raises:
        UsageProblem: there is no such layer; the near ones are named.
    """
    layers = named_layers(model)
    for name in wanted:
        if name not in layers:
            raise UsageProblem(f"--layer {name}: no such layer; {_near(name, model)}")
    return {name: layers[name] for name in wanted or default_layers(model)}


def chosen_attention(model: Model, wanted: Sequence[str]) -> dict[str, CbamModule]:
    """The CBAM modules that are the wanted layers, or at them; without any, the last of the model.

    Raises:
        UsageProblem: the model has no CBAM, or none there; or there is no such layer.
    """
    known = {name: part for name, part in model.named_modules() if isinstance(part, CbamModule)}
    if not known:
        raise UsageProblem(
            f"--method attention: {model.architecture.backbone} was trained without CBAM; "
            "train with --attention cbam, or give --method gradcam"
        )
    by_place = {name.replace("inner_attention.", ""): name for name in known}
    asked = [by_place.get(name.replace(".", "_"), name) for name in (chosen(model, wanted) if wanted else ())]
    found = {name: known[name] for name in asked if name in known}
    if wanted and not found:
        raise UsageProblem(f"--layer {wanted[0]}: has no CBAM; it is at {', '.join(list(known)[-6:])}")
    return found or dict([list(known.items())[-1]])


def _near(name: str, model: Model) -> str:
    """The layers of backbones whose names are like it; without any, those that end stages."""
    known = [full for full, _ in model.named_modules() if "backbone." in full]
    short = ["".join(full.split("backbone.", 1)) for full in known]
    near = get_close_matches(name, short, n=6, cutoff=0.5)
    if near:
        return f"near it: {', '.join(near)}"
    members = getattr(model, "members", [model])
    prefixes = [f"members.{number}." for number in range(len(members))] if hasattr(model, "members") else [""]
    ends = [
        prefix + stage
        for prefix, member in zip(prefixes, members, strict=True)
        for stage in layout.known_stages(member.backbone, member.architecture.backbone)
    ]
    return f"among its layers: {', '.join(ends[-8:] or short[-8:])}"


def as_map(output: Tensor, layer: str, model: Model) -> Tensor:
    """What a layer gives, as maps (n, channels, h, w): tokens are laid out, channels brought to the front.

    Raises:
        UsageProblem: it gives no map.
    """
    if output.ndim == 3:
        tokens = output.shape[1]
        for prefix in (_prefix_tokens(model, layer), tokens - isqrt(tokens) ** 2):
            side = isqrt(max(tokens - prefix, 0))
            if side * side == tokens - prefix and side > 1 and prefix <= MOST_PREFIX_TOKENS:
                return output[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    elif output.ndim == 4:
        if _channels_last(model, layer) and output.shape[1] == output.shape[2]:
            output = output.permute(0, 3, 1, 2)
        if output.shape[2] * output.shape[3] > 1:
            return output
    shape = " × ".join(map(str, output.shape[1:])) or "one number"
    raise UsageProblem(f"--layer {layer}: gives {shape} for an image, which is no map; give an earlier layer")


def _owner(model: Model, layer: str) -> nn.Module:
    """The classifier that a layer is in."""
    if isinstance(model, Classifier):
        return model
    parts = layer.split(".")
    return model.get_submodule(f"members.{parts[1]}") if parts[0] == "members" else model


def _prefix_tokens(model: Model, layer: str) -> int:
    backbone = getattr(_owner(model, layer), "backbone", None)
    return int(getattr(backbone, "num_prefix_tokens", 0))


def _channels_last(model: Model, layer: str) -> bool:
    backbone = getattr(_owner(model, layer), "backbone", None)
    return getattr(backbone, "output_fmt", "NCHW") == "NHWC"
