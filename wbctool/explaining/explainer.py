"""Maps of where a model looks: a forward pass, and a backward pass through what follows the explained layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wbctool.device import autocast, images_at_once
from wbctool.errors import UsageProblem
from wbctool.explaining.layers import as_feature_map, select_layers
from wbctool.explaining.method import METHODS, CamContext, Target, parameters_of
from wbctool.modeling.model_types import Model
from wbctool.modeling.predictor import symmetries

MOST_PROBABLE = -1  # in place of a class number


@dataclass
class BatchMaps:
    """Predictions and maps of a batch of images."""

    probabilities: np.ndarray  # (n, classes), the mean over the views that the model predicts by; rows sum to 1
    classes: np.ndarray  # number of the explained class of each image, (n,)
    maps: dict[str, np.ndarray]  # by method, (n, size, size), float32, 0 to 1
    ranges: dict[str, np.ndarray]  # by method with a `range_key`, the least and the greatest raw value, (n, 2)


@dataclass
class _Pass:
    """A forward pass of one view: logits, and the outputs of the explained layers and targets."""

    view: Tensor
    logits: Tensor
    layers: dict[str, Tensor] = field(default_factory=dict)
    targets: dict[tuple[str, str], Tensor] = field(default_factory=dict)


class Explainer:
    """Computes maps of what a model looks at.

    Nothing before the first explained layer keeps a graph, and no parameter gets a gradient. At the last stage a
    backward pass costs next to nothing.

    The model is a classifier or an ensemble, whose parameters no longer require gradients afterwards. Maps are averaged
    over `layers`, none for the last feature map (`default_layers`), and over `views` symmetries of the square, None for
    those that the model predicts by.

    Raises:
        UsageProblem: a method, layer or parameter is unknown, or the model has nothing that it could explain.
    """

    def __init__(
        self,
        model: Model,
        methods: Sequence[str] = ("gradcam",),
        layers: Sequence[str] = (),
        views: int | None = None,
        precision: str = "float32",
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.parameters = parameters_of(methods, parameters or {})
        self.methods = {name: METHODS.get(name) for name in methods}
        self.model = model.eval().requires_grad_(False)
        self.size = model.architecture.size
        self.views = views or model.architecture.symmetries
        self.precision = precision
        explains_layers = any(method.targets is None for method in self.methods.values())
        self.layers = select_layers(model, layers) if explains_layers else {}
        self._targets = {name: method.targets(model, layers) for name, method in self.methods.items() if method.targets}
        self._needs_gradients = any(method.needs_gradients for method in self.methods.values())
        self._fill = fill_colour(model)
        # one graph for each view: they are small only at the last layer
        self._graphs = self.views if self._needs_gradients and layers else 1
        # layers without feature maps are refused before the first image
        blank = torch.zeros(1, 3, self.size, self.size, device=next(model.parameters()).device)
        forward = self._forward_with_outputs(blank)
        self._gradients(forward, forward.logits.argmax(1))
        for name in self.layers:
            as_feature_map(forward.layers[name], name, model)

    @property
    def passes(self) -> int:
        """The number of forward passes that the maps of one image take."""
        return self.views * max(method.passes(self.parameters[name]) for name, method in self.methods.items())

    def explained_layers(self, method: str) -> list[str]:
        """Return the names of what a method explains: layers, or its own targets."""
        return list(self._targets.get(method, self.layers))

    def __call__(self, images: Tensor, classes: np.ndarray | None = None) -> BatchMaps:
        """Explain a batch (n, 3, size, size), uint8 or float, 0 to 255, on the model's device.

        `classes` are numbers of the class to explain, (n,); `MOST_PROBABLE`, as without them, is that of the image.
        """
        wanted = np.full(len(images), MOST_PROBABLE) if classes is None else np.asarray(classes)
        count = max(1, images_at_once(images.device) // self._graphs)
        starts = range(0, len(images), count)
        chunks = [self._explain(images[start : start + count], wanted[start : start + count]) for start in starts]
        return BatchMaps(
            np.concatenate([chunk.probabilities for chunk in chunks]),
            np.concatenate([chunk.classes for chunk in chunks]),
            {name: np.concatenate([chunk.maps[name] for chunk in chunks]) for name in self.methods},
            {name: np.concatenate([chunk.ranges[name] for chunk in chunks]) for name in chunks[0].ranges},
        )

    def _explain(self, images: Tensor, wanted: np.ndarray) -> BatchMaps:
        predicted_by = self.model.architecture.symmetries
        views = symmetries(images, max(self.views, predicted_by))
        passes = [self._forward_with_outputs(view) for view in views[: self.views]]
        passes += [_Pass(view, self._logits(view)) for view in views[self.views :]]
        logits = [forward.logits.detach() for forward in passes[:predicted_by]]
        probabilities = torch.stack([one.double().softmax(1) for one in logits]).mean(0).cpu().numpy()
        classes = np.where(wanted == MOST_PROBABLE, probabilities.argmax(1), wanted)
        maps: dict[str, list[Tensor]] = {name: [] for name in self.methods}
        ranges: dict[str, list[Tensor]] = {name: [] for name, method in self.methods.items() if method.range_key}
        class_numbers = torch.from_numpy(classes).to(images.device)
        for number, forward in enumerate(passes[: self.views]):
            for name, raw_maps in self._raw_maps(forward, class_numbers).items():
                maps[name] += [undo_view(to_image(raw, self.size), number) for raw in raw_maps]
                if name in ranges:
                    ranges[name] += [torch.stack([raw.amin((1, 2)), raw.amax((1, 2))], 1) for raw in raw_maps]
        return BatchMaps(
            probabilities,
            classes,
            {name: scaled(torch.stack(each).mean(0)).cpu().numpy() for name, each in maps.items()},
            {name: torch.stack(each).mean(0).cpu().numpy() for name, each in ranges.items()},
        )

    def _logits(self, images: Tensor, graph: bool = False) -> Tensor:
        with torch.enable_grad() if graph else torch.no_grad(), autocast(images.device, self.precision):
            return self.model(images)

    def _forward_with_outputs(self, view: Tensor) -> _Pass:
        """Classify a view, and keep what the explained layers and targets return; refuse layers that are not run."""
        forward = _Pass(view, torch.empty(0))
        with ExitStack() as hooks:
            for name, layer in self.layers.items():
                if self._needs_gradients:  # before hooks of the model itself that take the same output
                    hooks.enter_context(layer.register_forward_hook(_start_graph, prepend=True))
                hooks.enter_context(layer.register_forward_hook(partial(_keep_layer, forward, name)))
            for method, targets in self._targets.items():
                for name, target in targets.items():
                    keep = partial(_keep_target, forward, (method, name), target)
                    hooks.enter_context(target.module.register_forward_hook(keep))
            forward.logits = self._logits(view, self._needs_gradients)
        for name in self.layers:
            if name not in forward.layers:
                raise UsageProblem(f"--layer {name}: is not run when an image is classified; give another layer")
        return forward

    def _gradients(self, forward: _Pass, classes: Tensor) -> dict[str, Tensor]:
        """Return the gradients of the class scores with respect to each layer's feature maps."""
        if not self._needs_gradients:
            return {}
        score = forward.logits.gather(1, classes[:, None]).sum()
        computed: Sequence[Tensor | None] = [None] * len(self.layers)
        if score.requires_grad:
            computed = torch.autograd.grad(score, [forward.layers[name] for name in self.layers], allow_unused=True)
        gradients = {}
        for name, gradient in zip(self.layers, computed, strict=True):
            if gradient is None:
                raise UsageProblem(f"--layer {name}: the class score does not depend on it; give another layer")
            gradients[name] = as_feature_map(gradient, name, self.model).float()
        return gradients

    def _raw_maps(self, forward: _Pass, classes: Tensor) -> dict[str, list[Tensor]]:
        """Return the unscaled maps (n, h, w) of each method, one for each explained layer."""
        gradients = self._gradients(forward, classes)
        features = {
            name: as_feature_map(forward.layers[name].detach(), name, self.model).float() for name in self.layers
        }
        maps: dict[str, list[Tensor]] = {}
        for key, method in self.methods.items():
            targets = {name: forward.targets[key, name] for name in self._targets.get(key, ())}
            contexts = [
                CamContext(
                    activations,
                    images=forward.view,
                    classes=classes,
                    score=self._logits,
                    fill=self._fill,
                    gradients=gradients.get(name) if method.needs_gradients else None,
                    views=self.views,
                    parameters=self.parameters[key],
                )
                for name, activations in (targets or features).items()
            ]
            maps[key] = [method.maps(context) for context in contexts]
        return maps


def _start_graph(_module: nn.Module, _input: object, output: Tensor) -> Tensor | None:
    if isinstance(output, Tensor) and not output.requires_grad:
        return output.detach().requires_grad_()
    return None


def _keep_layer(forward: _Pass, name: str, _module: nn.Module, _input: object, output: Tensor) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(forward.view):
        raise UsageProblem(f"--layer {name}: gives no map of the image; give another layer")
    forward.layers[name] = output
    return output.clone()  # what comes next may work in place


def _keep_target(
    forward: _Pass, key: tuple[str, str], target: Target, _module: nn.Module, _input: object, output: Tensor
) -> None:
    forward.targets[key] = target.activations(output)


def fill_colour(model: Model) -> Tensor:
    """Return the colour of hidden pixels, (3, 1, 1), 0 to 255: the one that the model normalizes to 0."""
    members = getattr(model, "members", [model])
    return torch.stack([member.mean for member in members]).mean(0).view(3, 1, 1)


def scaled(maps: Tensor) -> Tensor:
    """Scale each of the maps (n, h, w) to 0 to 1; a constant one becomes 0."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (maps.amax((1, 2), keepdim=True) + 1e-7)


def to_image(maps: Tensor, size: int) -> Tensor:
    """Set negative values of raw maps (n, h, w) to 0, scale each to 0 to 1, and enlarge it: (n, size, size)."""
    whole = functional.interpolate(scaled(maps.float().relu())[:, None], (size, size), mode="bilinear")
    return whole[:, 0]


def undo_view(maps: Tensor, number: int) -> Tensor:
    """Turn maps (n, size, size) of a view back to the image, by the view's number among `symmetries`."""
    maps = maps.transpose(-1, -2) if number & 4 else maps
    maps = maps.flip(-2) if number & 2 else maps
    return maps.flip(-1) if number & 1 else maps
