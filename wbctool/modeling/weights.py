"""Pretrained weights for a backbone: from a file, read without pickle, or from timm's hub."""

from __future__ import annotations

import re
from pathlib import Path

import timm
import torch

from wbctool.errors import InputError
from wbctool.modeling.architecture import CUSTOM_CNN, Architecture
from wbctool.modeling.classifier import Classifier, make_backbone

_CONTAINERS = ("state_dict", "model", "teacher")  # keys under which checkpoints keep the weights
_PREFIXES = ("module.", "backbone.")


def load_pretrained(model: Classifier, weights: str) -> str:
    """Load pretrained weights into the backbone, and return what was loaded, for people.

    `weights` is `none`, `imagenet` (timm's, from its hub), or a .safetensors or .pth file. Tensors that the backbone
    does not have, such as a last layer, are ignored. Checkpoints in DINOv2's layout are known: their heads are ignored,
    blocks in chunks are numbered through, and the positional embedding is resampled to the input's size.

    Raises InputError where the hub does not answer, or the file is not a state dict of this backbone.
    """
    if weights == "none":
        return "random weights"
    architecture = model.architecture
    state = _from_hub(architecture) if weights == "imagenet" else _timm_names(read_state(Path(weights)))
    if isinstance(model.backbone, timm.models.VisionTransformer):
        state = timm.models.vision_transformer.checkpoint_filter_fn(state, model.backbone)
    shapes = {key: value.shape for key, value in model.backbone.state_dict().items()}
    expected = {key for key in shapes if not key.endswith("num_batches_tracked")}
    fitting = {key: value for key, value in state.items() if value.shape == shapes.get(key)}
    missing = sorted(expected - set(fitting))
    if missing:
        raise InputError(
            f"{weights}: {len(missing)} of {len(expected)} tensors of {architecture.backbone} are missing or of "
            f"another shape, first {missing[0]}; give the weights of that backbone, or --backbone to match"
        )
    damaged = next((k for k, v in fitting.items() if v.is_floating_point() and not torch.isfinite(v).all()), None)
    if damaged:
        raise InputError(f"{weights}: {damaged} holds NaN or infinity; give undamaged weights")
    model.backbone.load_state_dict(fitting, strict=False)
    return f"{len(fitting)} tensors from {weights}"


def _timm_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict without prefixes of wrappers, without self-supervised heads, blocks numbered through."""
    named = {}
    for key, value in state.items():
        for prefix in _PREFIXES:
            key = key.removeprefix(prefix)
        if key.startswith(("dino_head.", "ibot_head.")):
            continue
        named[re.sub(r"^blocks\.\d+\.(\d+)\.(norm|attn|ls|mlp)", r"blocks.\1.\2", key)] = value
    return named


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict; nothing but tensors is unpickled. Raises InputError where the file holds something else."""
    if not path.is_file():
        raise InputError(f"--weights {path}: no such file (or `imagenet`, or `none`)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as weights ({reason}); give .safetensors or a plain state dict"
        ) from None
    for key in _CONTAINERS:
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
    _check_hub(architecture)
    try:
        return make_backbone(architecture, pretrained=True).state_dict()
    except Exception as error:  # network, proxy, cache and file errors are all of different kinds
        raise _no_hub(architecture, f"{type(error).__name__}") from None


def _check_hub(architecture: Architecture) -> None:
    """Send one short request where the weights are not in the cache, as the hub client retries for a minute."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    name = architecture.backbone
    config = None if name == CUSTOM_CNN else timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise InputError(f"--weights imagenet: there are none for {name}; give a file, or --weights none")
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
