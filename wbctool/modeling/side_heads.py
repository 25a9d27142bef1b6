"""Further heads beside a backbone, on the covariance of its feature maps half-way.

What tells white cells apart is often texture: chromatin, granules. The covariance of the channels over a map keeps
which of them fire together, where their mean keeps only how much each does. Each head is trained by its own loss (Lee
et al. 2015, deeply supervised nets), and the log-probabilities of all heads are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from wbctool.device import autocast
from wbctool.modeling import layout

STRIDES = (8, 16)  # approximate strides of the maps: deep enough to be informative, fine enough to show texture
SMALLEST = 4  # side of the smallest map, pixels
CHANNELS = 64  # to which wider maps are reduced
DROPOUT = 0.5
ITERATIONS = 5  # of Newton and Schulz; the source's


def matrix_root(matrices: torch.Tensor) -> torch.Tensor:
    """Return approximate square roots of symmetric positive semi-definite matrices (n, c, c); of zeros, finite ones.

    Newton-Schulz iterations between a division by the trace and its inverse: Li et al. 2018 (Towards faster training of
    global covariance pooling networks), equations 3 to 6. So few iterations leave the roots of the smallest eigenvalues
    too small, which smooths a little.
    """
    trace = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] + 1e-5
    identity = torch.eye(matrices.shape[-1], device=matrices.device, dtype=matrices.dtype)
    root, inverse = matrices / trace, identity.expand_as(matrices)
    for _ in range(ITERATIONS):
        step = 1.5 * identity - 0.5 * inverse @ root
        root, inverse = root @ step, step @ inverse
    return root * trace.sqrt()


class CovarianceHead(nn.Module):
    """Logits (n, classes) from the covariance of a feature map (n, channels, h, w), computed in float32."""

    upper: torch.Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        reduced = min(channels, CHANNELS)
        self.reduce: nn.Module = nn.Identity()
        if reduced < channels:
            convolution = nn.Conv2d(channels, reduced, 1, bias=False)
            self.reduce = nn.Sequential(convolution, nn.BatchNorm2d(reduced))
            nn.init.orthogonal_(convolution.weight)
        upper = torch.triu_indices(reduced, reduced)
        self.register_buffer("upper", upper, persistent=False)
        self.norm = nn.BatchNorm1d(upper.shape[1], affine=False)
        self.last = nn.Linear(upper.shape[1], classes)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes), float32, for maps (n, channels, h, w) of any precision."""
        with autocast(maps.device, "float32"):
            values = self.reduce(maps.float()).flatten(2)
            values = values - values.mean(-1, keepdim=True)
            root = matrix_root(values @ values.transpose(1, 2) / values.shape[-1])
            vector = self.norm(root[:, self.upper[0], self.upper[1]])
            return self.last(nn.functional.dropout(vector, DROPOUT, self.training))


class SideHeads(nn.ModuleDict):
    """A covariance head at the end of each stage whose maps are an eighth or a sixteenth of the input's side.

    They take the maps by hooks, so that the backbone's tensors keep their names. A backbone without such maps, such as
    a ViT, gets no heads. `probe` runs the backbone once.
    """

    def __init__(self, backbone: nn.Module, name: str, size: int, classes: int, probe: Callable[[], object]) -> None:
        super().__init__()
        self._collected: list[torch.Tensor] | None = None
        for stage, shape in layout.output_shapes(backbone, layout.known_stages(backbone, name), probe).items():
            if _is_suitable(shape, size):
                key = stage.replace(".", "_")
                self[key] = CovarianceHead(shape[1], classes)
                # not a closure: a deep copy of the model copies what a partial holds, and so runs its own heads
                backbone.get_submodule(stage).register_forward_hook(partial(self._collect, key))

    def _collect(self, key: str, _module: nn.Module, _inputs: object, maps: torch.Tensor) -> None:
        if self._collected is not None:
            self._collected.append(self[key](maps))

    @contextmanager
    def collecting(self) -> Iterator[list[torch.Tensor]]:
        """Context that collects the heads' logits (n, classes) while the backbone runs, in the order of the heads."""
        collected: list[torch.Tensor] = []
        self._collected = collected
        try:
            yield collected
        finally:
            self._collected = None


def _is_suitable(shape: torch.Size, size: int) -> bool:
    if len(shape) != 4 or shape[2] != shape[3] or shape[2] < SMALLEST:
        return False
    return 2 ** round(math.log2(size / shape[2])) in STRIDES


def mean_log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean over heads, (n, classes), of the log-probabilities of logits (heads, n, classes)."""
    return torch.log_softmax(logits.float(), -1).mean(0)
