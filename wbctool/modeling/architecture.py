"""The classifier: a timm backbone, attention on its last feature map, timm's own head."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.cbam import CbamModule
from torch import nn

from wbctool.errors import InputError, UsageProblem

ATTENTIONS = ("none", "cbam")
REDUCTION = 16


@dataclass(frozen=True)
class Architecture:
    """What is needed to build a classifier again.

    Attributes:
        backbone: a timm model name.
        backbone_args: keyword arguments for timm, such as `pad_type`.
        attention: `none` or `cbam`.
        dropout: rate before the last layer.
        classes: class names, in the order of the outputs.
        size: side of the input images, pixels.
        mean: of the normalisation, per RGB channel, on a scale of 0 to 1.
        std: likewise.
    """

    backbone: str
    classes: tuple[str, ...]
    size: int = 224
    attention: str = "cbam"
    dropout: float = 0.0
    backbone_args: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Architecture:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError: a part is missing.
        """
        parts = {name: value[name] for name in cls.__dataclass_fields__}
        return cls(**{**parts, **{name: tuple(parts[name]) for name in ("classes", "mean", "std")}})


class Classifier(nn.Module):
    """Backbone features (n, channels, h, w) → attention → the backbone's head → logits (n, classes).

    Input is a batch (n, 3, size, size), uint8 or float on a scale of 0 to 255; it is normalised here,
    on the device, so that every command feeds the network alike.

    Source of CBAM: Woo et al. 2018, eqs. 2 and 3, with reduction 16 and a 7×7 kernel.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = _backbone(architecture)
        self.attention: nn.Module = nn.Identity()
        if architecture.attention == "cbam":
            channels = _channels(self.backbone, architecture)
            self.attention = CbamModule(channels, rd_ratio=1 / REDUCTION, mlp_bias=True)
        mean = 255.0 * torch.tensor(architecture.mean).view(1, 3, 1, 1)
        std = 255.0 * torch.tensor(architecture.std).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The attended feature map of a batch."""
        normalised = (images.float() - self.mean) / self.std
        return self.attention(self.backbone.forward_features(normalised))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone.forward_head(self.features(images))

    def new_parts(self) -> list[nn.Parameter]:
        """Parameters that no pretraining has seen: attention and the last layer."""
        return [*self.attention.parameters(), *self.backbone.get_classifier().parameters()]

    def freeze(self, frozen: bool) -> None:
        """Let only the new parts learn, or everything. Frozen batch statistics stay as they are."""
        for parameter in self.parameters():
            parameter.requires_grad_(not frozen)
        for parameter in self.new_parts():
            parameter.requires_grad_(True)
        self._frozen = frozen

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if mode and getattr(self, "_frozen", False):
            self.backbone.eval()
        return self


def _backbone(architecture: Architecture) -> nn.Module:
    name = architecture.backbone
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:6]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise UsageProblem(f"--backbone {name}: no such timm model{hint}")
    try:
        return timm.create_model(
            name,
            pretrained=False,
            num_classes=len(architecture.classes),
            drop_rate=architecture.dropout,
            **architecture.backbone_args,
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageProblem(f"--backbone {name} with {architecture.backbone_args}: {error}") from None


def _channels(backbone: nn.Module, architecture: Architecture) -> int:
    """Channels of the last feature map.

    Raises:
        UsageProblem: the backbone has no feature map for CBAM to look at.
    """
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            shape = backbone.forward_features(torch.zeros(1, 3, architecture.size, architecture.size)).shape
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageProblem(f"--size {architecture.size} does not suit {architecture.backbone}: {error}") from None
    backbone.train(was_training)
    if len(shape) != 4 or shape[1] != backbone.num_features:
        raise UsageProblem(
            f"--attention cbam needs a convolutional backbone; {architecture.backbone} has none: give --attention none"
        )
    return shape[1]


def default_normalisation(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation timm states for a backbone's weights."""
    config = timm.get_pretrained_cfg(backbone)
    if config is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return tuple(config.mean), tuple(config.std)


def load_pretrained(model: Classifier, weights: str) -> str:
    """Load pretrained weights into the backbone; the last layer is left where its shape differs.

    Args:
        model: the classifier.
        weights: `none`, `imagenet` (timm's own, from its hub), or a .safetensors or .pth file.

    Returns:
        What was loaded, in words.

    Raises:
        InputError: the hub does not answer, or the file is no state dict of this backbone.
    """
    if weights == "none":
        return "random weights"
    state = _from_hub(model.architecture) if weights == "imagenet" else read_state(Path(weights))
    own = model.backbone.state_dict()
    state = {key.removeprefix("module.").removeprefix("backbone."): value for key, value in state.items()}
    head = {
        f"{module}.{part}"
        for module, layer in model.backbone.named_modules()
        for part in ("weight", "bias")
        if layer is model.backbone.get_classifier()
    }
    wanted = {key for key in own if key not in head and not key.endswith("num_batches_tracked")}
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    lacking = sorted(wanted - set(fitting))
    if lacking:
        raise InputError(
            f"{weights}: {len(lacking)} of {len(wanted)} tensors of {model.architecture.backbone} are missing or of "
            f"another shape, first {lacking[0]}; give the weights of that backbone, or --backbone to match"
        )
    for key in head & set(fitting):
        del fitting[key]
    model.backbone.load_state_dict(fitting, strict=False)
    return f"{len(fitting)} tensors from {weights}"


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict without unpickling anything but tensors.

    Raises:
        InputError: the file is missing, is neither format, or holds more than tensors.
    """
    if not path.is_file():
        raise InputError(f"--weights {path}: no such file (or `imagenet`, or `none`)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own errors
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as weights ({reason}); give .safetensors or a plain state dict"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no state dict of tensors; save model.state_dict()")
    return state


def _from_hub(architecture: Architecture) -> dict[str, torch.Tensor]:
    import logging
    import os

    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "5")
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "3")
    for name in ("timm", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _ask_hub_first(architecture)
    try:
        return timm.create_model(architecture.backbone, pretrained=True, **architecture.backbone_args).state_dict()
    except Exception as error:  # network, proxy, cache and file errors are all of different kinds
        raise _no_hub(architecture, f"{type(error).__name__}") from None


def _ask_hub_first(architecture: Architecture) -> None:
    """One short request, where the weights are not in the cache: the hub's own retries take a minute."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    config = timm.get_pretrained_cfg(architecture.backbone)
    if config is None or not config.has_weights:
        raise InputError(f"--weights imagenet: timm has none for {architecture.backbone}; give a file, or none")
    if not config.hf_hub_id:
        return
    names = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(config.hf_hub_id, name), str) for name in names):
        return
    try:
        HfApi().model_info(config.hf_hub_id, timeout=4)
    except Exception as error:
        raise _no_hub(architecture, type(error).__name__) from None


def _no_hub(architecture: Architecture, reason: str) -> InputError:
    return InputError(
        f"--weights imagenet: the model hub does not answer ({reason}); download the weights of "
        f"{architecture.backbone} elsewhere and give --weights FILE.safetensors, or start from --weights none"
    )
