"""Maps of where a model looks: one pass forward, and back only through what follows the explained layer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from wbctool.device import autocast, images_at_once
from wbctool.errors import UsageProblem
from wbctool.explaining import METHODS
from wbctool.explaining import layers as places
from wbctool.explaining.maps import BY_GRADIENT, eigencam, scaled, to_image
from wbctool.explaining.score_cam import scorecam
from wbctool.modeling.model_types import Model
from wbctool.modeling.predictor import symmetries

LIKELIEST = -1  # in place of a class


@dataclass
class Explained:
    """What is said of a batch of images.

    Attributes:
        probabilities: (n, classes), the mean over the views that the model predicts by; rows sum to 1.
        classes: the class explained, of each image, (n,).
        maps: by method, (n, size, size), float32, 0 to 1.
        gates: for `attention`, the least and the largest value of CBAM's spatial gate, (n, 2); else None.
    """

    probabilities: np.ndarray
    classes: np.ndarray
    maps: dict[str, np.ndarray]
    gates: np.ndarray | None = None


class Explainer:
    """Explains what a model says of images.

    Nothing before the first explained layer keeps a graph, and no parameter gets a gradient: at the last
    stage the way back costs next to nothing.

    Args:
        model: a classifier or an ensemble; its parameters no longer ask for gradients afterwards.
        methods: of `maps.METHODS`.
        layers: their names; the last map without any (`layers.default_layers`). The maps of several are averaged.
        views: symmetries of the square that a map is the mean over; as many as the model predicts by without.
        precision: `float32` or `bf16`.
        channels: for `scorecam`, how many channels of each image; all without.

    Raises:
        UsageProblem: there is no such method or layer, or the model has nothing for it.
    """

    def __init__(
        self,
        model: Model,
        methods: Sequence[str] = ("gradcam",),
        layers: Sequence[str] = (),
        views: int | None = None,
        precision: str = "float32",
        channels: int | None = None,
    ) -> None:
        for method in methods:
            if method not in METHODS:
                raise UsageProblem(f"--method {method}: choose from {', '.join(METHODS)}")
        self.model = model.eval().requires_grad_(False)
        self.methods = tuple(methods)
        self.size = model.architecture.size
        self.views = views or model.architecture.symmetries
        self.precision, self.channels = precision, channels
        self.layers = places.chosen(model, layers) if set(methods) - {"attention"} else {}
        self.gates = places.chosen_attention(model, layers) if "attention" in methods else {}
        self._by_gradient = bool(set(methods) & set(BY_GRADIENT))
        # of all views at once; they are small only at the last layer
        self._graphs = self.views if self._by_gradient and layers else 1
        self._try()

    def _try(self) -> None:
        """Refuse layers without maps before the first image."""
        blank = torch.zeros(1, 3, self.size, self.size, device=next(self.model.parameters()).device)
        with self._watching(1) as watched:
            logits = self._logits(blank, self._by_gradient)
        self._gradients(logits, logits.argmax(1), watched)
        for name in self.layers:
            places.as_map(watched[name], name, self.model)

    def __call__(self, images: Tensor, classes: np.ndarray | None = None) -> Explained:
        """Explain a batch.

        Args:
            images: (n, 3, size, size), uint8 or float from 0 to 255, on the model's device.
            classes: the number of the class to explain of each image, (n,), or `LIKELIEST`, as without.
        """
        wanted = np.full(len(images), LIKELIEST) if classes is None else np.asarray(classes)
        count = max(1, images_at_once(images.device) // self._graphs)
        starts = range(0, len(images), count)
        parts = [self._part(images[start : start + count], wanted[start : start + count]) for start in starts]
        maps = {method: np.concatenate([part.maps[method] for part in parts]) for method in self.methods}
        gates = [part.gates for part in parts if part.gates is not None]
        shares = np.concatenate([part.probabilities for part in parts])
        chosen = np.concatenate([part.classes for part in parts])
        return Explained(shares, chosen, maps, np.concatenate(gates) if gates else None)

    def _part(self, images: Tensor, wanted: np.ndarray) -> Explained:
        seen, logits = [], []
        for number, view in enumerate(symmetries(images, max(self.views, self.model.architecture.symmetries))):
            watching: AbstractContextManager[dict[str, Tensor]] = nullcontext({})
            if number < self.views:
                watching = self._watching(len(view))
            with watching as watched:
                logits.append(self._logits(view, number < self.views and self._by_gradient))
            if number < self.views:
                seen.append((view, watched))
        own = logits[: self.model.architecture.symmetries]
        shares = torch.stack([one.detach().double().softmax(1) for one in own]).mean(0)
        probabilities = shares.cpu().numpy()
        classes = np.where(wanted == LIKELIEST, probabilities.argmax(1), wanted)
        target = torch.from_numpy(classes).to(images.device)
        maps: dict[str, list[Tensor]] = {method: [] for method in self.methods}
        gates: list[Tensor] = []
        for number, (view, watched) in enumerate(seen):
            gradients = self._gradients(logits[number], target, watched)
            for method in self.methods:
                raw = self._raw(method, view, target, watched, gradients)
                if method == "attention":
                    gates += [torch.stack([one.amin((1, 2)), one.amax((1, 2))], 1) for one in raw]
                maps[method] += [_undone(to_image(one, self.size), number) for one in raw]
        made = {method: scaled(torch.stack(found).mean(0)).cpu().numpy() for method, found in maps.items()}
        ranges = torch.stack(gates).mean(0).cpu().numpy() if gates else None
        return Explained(probabilities, classes, made, ranges)

    def _logits(self, images: Tensor, graph: bool = False) -> Tensor:
        with torch.enable_grad() if graph else torch.no_grad(), autocast(images.device, self.precision):
            return self.model(images)

    @contextmanager
    def _watching(self, count: int) -> Iterator[dict[str, Tensor]]:
        """Within it, what the explained layers, and CBAM's gates, give of so many images."""
        given: dict[str, Tensor] = {}

        def start(_module: nn.Module, _input: object, output: Tensor) -> Tensor | None:
            # the graph starts here, before hooks of the model's own that take the same map
            if self._by_gradient and isinstance(output, Tensor) and not output.requires_grad:
                return output.detach().requires_grad_()
            return None

        def keep(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
            def kept(_module: nn.Module, _input: object, output: Tensor) -> Tensor:
                if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != count:
                    raise UsageProblem(f"--layer {name}: gives no map of the image; give another layer")
                given[name] = output
                return output.clone()  # what comes next may work in place

            return kept

        def gate(name: str, module: CbamModule) -> Callable[[nn.Module, object, Tensor], None]:
            def kept(_module: nn.Module, _input: object, output: Tensor) -> None:
                given[name] = module.spatial.gate(output.detach().float())

            return kept

        handles = []
        for name, module in self.layers.items():
            handles.append(module.register_forward_hook(start, prepend=True))
            handles.append(module.register_forward_hook(keep(name)))
        for name, cbam in self.gates.items():
            handles.append(cbam.spatial.conv.register_forward_hook(gate(f"gate of {name}", cbam)))
        try:
            yield given
        finally:
            for handle in handles:
                handle.remove()
        unused = [name for name in self.layers if name not in given]
        if unused:
            raise UsageProblem(f"--layer {unused[0]}: is not run when an image is classified; give another layer")

    def _gradients(self, logits: Tensor, classes: Tensor, watched: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self._by_gradient:
            return {}
        score = logits.gather(1, classes[:, None]).sum()
        outputs = [watched[name] for name in self.layers]
        found = torch.autograd.grad(score, outputs, allow_unused=True) if score.requires_grad else [None] * len(outputs)
        gradients = {}
        for name, gradient in zip(self.layers, found, strict=True):
            if gradient is None:
                raise UsageProblem(f"--layer {name}: the class' score does not depend on it; give another layer")
            gradients[name] = places.as_map(gradient, name, self.model).float()
        return gradients

    def _raw(
        self, method: str, view: Tensor, classes: Tensor, watched: dict[str, Tensor], gradients: dict[str, Tensor]
    ) -> list[Tensor]:
        """Maps (n, h, w) that are not yet scaled, one for each layer."""
        if method == "attention":
            return [watched[f"gate of {name}"][:, 0] for name in self.gates]
        maps = []
        for name in self.layers:
            activations = places.as_map(watched[name].detach(), name, self.model).float()
            if method in BY_GRADIENT:
                maps.append(BY_GRADIENT[method](activations, gradients[name]))
            elif method == "scorecam":
                fill = fill_colour(self.model)
                maps.append(scorecam(self._logits, view.float(), fill, activations, classes, self.channels))
            elif method == "eigencam":
                maps.append(eigencam(activations, with_activity=self.views > 1))
            else:
                maps.append(_random(view, activations.shape[2:]))
        return maps


def fill_colour(model: Model) -> Tensor:
    """The colour of what is hidden from a model, (3, 1, 1), 0 to 255: that which its normalisation makes 0."""
    members = getattr(model, "members", [model])
    return torch.stack([member.mean for member in members]).mean(0).view(3, 1, 1)


def _random(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Maps of chance, of a layer's shape, decided by the pixels of each image alone."""
    maps = []
    for image in images.to(torch.uint8).contiguous().cpu().numpy():
        seed = int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "little")
        maps.append(np.random.default_rng(seed).random(tuple(shape), dtype=np.float32))
    return torch.from_numpy(np.stack(maps)).to(images.device)


def _undone(maps: Tensor, number: int) -> Tensor:
    """Maps (n, size, size) of one of the symmetries of the square, laid back on the image."""
    maps = maps.transpose(-1, -2) if number & 4 else maps
    maps = maps.flip(-2) if number & 2 else maps
    return maps.flip(-1) if number & 1 else maps
