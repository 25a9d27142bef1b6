"""The classifier: a backbone, attention, a head; and which parts of it learn."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wbctool.errors import UsageProblem
from wbctool.modeling import attention, heads, layout
from wbctool.modeling.architecture import CUSTOM_CNN, RGB, Architecture
from wbctool.modeling.model_types import Model, ModelType

WIDTHS = (16, 32, 64, 128)  # of the custom CNN
DENSE = 128

if TYPE_CHECKING:

    class Backbone(nn.Module):
        """What timm's models, and the custom CNN, have in common."""

        def forward_features(self, images: torch.Tensor) -> torch.Tensor: ...

        def forward_head(self, maps: torch.Tensor, pre_logits: bool) -> torch.Tensor: ...


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


class Classifier(Model):
    """Backbone features (n, channels, h, w) → attention → a vector → the head → logits (n, classes).

    Input is a batch (n, 3, size, size), uint8 or float on a scale of 0 to 255; it is normalised here, on the device, so
    that every command feeds the network in the same way. Raises UsageProblem where the backbone is unknown, or does not
    suit the size, the pooling or the attention.
    """

    architecture: Architecture
    mean: torch.Tensor
    std: torch.Tensor
    head: nn.Sequential | heads.NearestNeighbours

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        mean = 255.0 * torch.tensor(architecture.mean).view(1, 3, 1, 1)
        std = 255.0 * torch.tensor(architecture.std).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.backbone = make_backbone(architecture)
        self._frozen_backbone = self._keep_statistics = False
        self.attention: nn.Module = nn.Identity()
        self.inner_attention = nn.ModuleDict()
        self.side_heads: heads.SideHeads | None = None
        shape = self._probe().shape
        if architecture.attention == "cbam":
            self._add_attention(shape)
        if architecture.side_heads == "covariance":
            size, classes = architecture.size, len(architecture.classes)
            self.side_heads = heads.SideHeads(self.backbone, architecture.backbone, size, classes, self._probe)
        if architecture.pool != "backbone":
            if not _is_map(shape):
                name = architecture.backbone
                raise UsageProblem(f"--pool {architecture.pool}: {name} has no feature map; leave it out")
            self._drop_unused()
        with torch.no_grad():
            width = self.vector(self._probe()).shape[1]
        if architecture.neighbours:
            count, stored = architecture.neighbours
            self.head = heads.NearestNeighbours(width, len(architecture.classes), count, stored)
        else:
            norm, dense, dropout = architecture.norm, architecture.dense, architecture.dropout
            self.head = heads.dense_head(width, norm, dense, dropout, len(architecture.classes))
        self.train()

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Return the backbone's feature maps (n, channels, h, w), or its tokens (n, tokens, channels), of a batch."""
        maps = self.backbone.forward_features((images.float() - self.mean) / self.std)
        return maps.float() if maps.device.type == "cpu" else maps  # a CPU is slow at pooling bfloat16

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the attended feature maps of a batch."""
        return self.attention(self.maps(images))

    def vector(self, maps: torch.Tensor) -> torch.Tensor:
        """Return what the head takes, (n, width), of attended feature maps."""
        if self.architecture.pool != "backbone":
            return heads.pooled(maps, self.architecture.pool)
        vector = self.backbone.forward_head(maps, pre_logits=True)
        return vector.mean((2, 3)) if vector.ndim == 4 else vector

    def forward(self, inputs: torch.Tensor, frozen: bool = False) -> torch.Tensor:
        """Return logits (n, classes) of images, or, where `frozen`, of what `frozen_features` returned for them.

        In training, a classifier with side heads returns those of each head, (heads, n, classes).
        """
        if frozen:
            return self.head(self.vector(self.attention(inputs)) if self.architecture.attention == "cbam" else inputs)
        return self.forward_features(inputs)[1]

    def forward_features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the head takes of a batch, (n, width), and the logits as `forward` returns them."""
        if not self.side_heads:
            vector = self.vector(self.features(images))
            return vector, self.head(vector)
        with self.side_heads.collecting() as side_logits:
            vector = self.vector(self.features(images))
        logits = torch.stack([self.head(vector).float(), *side_logits])
        return vector, logits if self.training else heads.mean_log_probabilities(logits)

    def frozen_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return what a frozen backbone computes of a batch, up to the first part that learns."""
        maps = self.maps(images)
        return maps if self.architecture.attention == "cbam" else self.vector(maps)

    @property
    def has_frozen_features(self) -> bool:
        """Whether everything that learns over a frozen backbone comes after it."""
        return len(self.inner_attention) == 0 and not self.side_heads

    def unfreeze(self, rule: str, keep_statistics: bool = False) -> None:
        """Let attention and head learn, and of the backbone what the rule says; see `layout.trained_names`.

        Batch statistics of layers that do not learn stay as they are; with `keep_statistics`, all of the backbone's.
        """
        names = layout.trained_names(self.backbone, self.architecture.backbone, self._order, rule)
        self.requires_grad_(True)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name in names)
        self._frozen_backbone = not names
        self._keep_statistics = keep_statistics

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if mode:
            for module in self.backbone.modules():
                parameters = list(module.parameters(recurse=False))
                is_kept = self._keep_statistics and isinstance(module, _BatchNorm)
                is_frozen = parameters and not any(parameter.requires_grad for parameter in parameters)
                if self._frozen_backbone or is_kept or is_frozen:
                    module.training = False
        return self

    def depths(self) -> dict[str, float]:
        """Return the relative depth of each parameter: 0 in the first layer, 1 in the head and all attention."""
        names = list(dict.fromkeys(name for layer in self._order.layers for name in layer))
        depth = {f"backbone.{name}": index / max(len(names), 1) for index, name in enumerate(names)}
        return {
            name: depth.get(name, 0.0) if name.startswith("backbone.") else 1.0 for name, _ in self.named_parameters()
        }

    @cached_property
    def _order(self) -> layout.ExecutionOrder:
        name, was_training = self.architecture.backbone, self.training
        self.eval()  # attention inside the backbone, too: no statistics are learnt from a blank image
        order = layout.ExecutionOrder.of(self.backbone, name, lambda: self.vector(self.maps(self._blank())))
        self.train(was_training)
        return order

    def _blank(self) -> torch.Tensor:
        device = next(self.backbone.parameters()).device
        return torch.zeros(1, 3, self.architecture.size, self.architecture.size, device=device)

    @torch.no_grad()
    def _probe(self) -> torch.Tensor:
        """Run the backbone once on a blank image, in evaluation mode, so that no statistics are learnt from it."""
        self.eval()
        try:
            return self.backbone.forward_features(self._blank())
        except (RuntimeError, AssertionError, ValueError) as error:
            name, size = self.architecture.backbone, self.architecture.size
            raise UsageProblem(f"--size {size} does not suit {name}: {error}") from None

    def _add_attention(self, shape: torch.Size) -> None:
        name, at = self.architecture.backbone, self.architecture.attention_at
        if not _is_map(shape):
            raise attention.no_feature_maps(name)
        if at == "head":
            self.attention = attention.cbam(shape[1])
        else:
            self.inner_attention = attention.InsideAttention(self.backbone, name, at, self._probe)

    def _drop_unused(self) -> None:
        """Remove the layers of the backbone after its feature map, where the head here takes their place."""
        used = {name for layer in self._order.layers for name in layer}
        for child, module in list(self.backbone.named_children()):
            names = [f"{child}.{name}" for name, _ in module.named_parameters()]
            if names and not used.intersection(names):
                setattr(self.backbone, child, nn.Identity())


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """Resize a batch (n, channels, height, width) to side × side pixels."""
    if images.shape[-1] == side:
        return images
    return nn.functional.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)


def _is_map(shape: torch.Size) -> bool:
    """Whether it is (n, channels, side, side); Swin and similar networks have their channels last."""
    return len(shape) == 4 and shape[2] == shape[3]


_REFUSED_ARGS = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
    *("num_classes", "scriptable", "exportable", "no_jit"),
}


def make_backbone(architecture: Architecture, **more: Any) -> Backbone:
    """Return a timm model without its last layer, or the custom CNN; UsageProblem where it cannot be built."""
    name = architecture.backbone
    if name != CUSTOM_CNN and not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:6]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise UsageProblem(f"--backbone {name}: no such timm model{hint}")
    refused = sorted(_REFUSED_ARGS & set(architecture.backbone_args))
    if refused:  # a run folder must not make timm read files
        raise UsageProblem(f"--backbone-arg {refused[0]}: is not for choosing an architecture; see --weights")
    try:
        if name == CUSTOM_CNN:
            return cast("Backbone", CustomCnn(architecture.size, **architecture.backbone_args))
        config = timm.get_pretrained_cfg(name)
        size = {"img_size": architecture.size} if config and config.fixed_input_size else {}
        backbone = timm.create_model(name, num_classes=0, **{**size, **architecture.backbone_args, **more})
        return cast("Backbone", backbone)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageProblem(f"--backbone {name} with {architecture.backbone_args}: {error}") from None


def has_batch_norm(backbone: str) -> bool:
    """Return whether a backbone has batch normalisation, as ResNets have, and ViT, ConvNeXt and VGG have not."""
    with torch.device("meta"):  # no weights are needed
        network = make_backbone(Architecture(backbone, ()))
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def default_normalisation(backbone: str) -> tuple[RGB, RGB]:
    """Return the mean and standard deviation that timm states for a backbone's weights."""
    config = timm.get_pretrained_cfg(backbone) if timm.is_model(backbone) else None
    source = config or Architecture
    return cast(RGB, tuple(source.mean)), cast(RGB, tuple(source.std))


CLASSIFIER = ModelType("classifier", "A backbone with attention and a head.", "", Architecture, Classifier)
