"""Further heads beside a backbone, on the covariance of its feature maps half-way.

What tells white cells apart is often texture: chromatin, granules. The covariance of the channels over a
map keeps which of them fire together, where their mean keeps only how much each does. Each head is trained
by its own loss (Lee et al. 2015, deeply supervised nets), and all heads' answers are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from wbctool.device import autocast
from wbctool.modeling import layout

STRIDES = (8, 16)  # of the maps, nearly: deep enough to say something, fine enough to be a texture
SMALLEST = 4  # side of a map with a covariance worth the name
CHANNELS = 64  # to which wider maps are reduced
DROPOUT = 0.5
ITERATIONS = 5  # of Newton and Schulz; the source's


def matrix_root(matrices: torch.Tensor) -> torch.Tensor:
    """The square roots of symmetric positive semi-definite matrices (n, c, c), approximately.

    Newton-Schulz iterations between a division by the trace and its undoing: Li et al. 2018 (Towards
    faster training of global covariance pooling networks), equations 3 to 6.
    So few of them leave the smallest eigenvalues' roots smaller than they are, which does a little smoothing.

    Returns:
        Shape (n, c, c), of the same type; finite for a matrix of zeros, too.
    """
    trace = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] + 1e-5
    once = torch.eye(matrices.shape[-1], device=matrices.device, dtype=matrices.dtype)
    root, inverse = matrices / trace, once.expand_as(matrices)
    for _ in range(ITERATIONS):
        step = 1.5 * once - 0.5 * inverse @ root
        root, inverse = root @ step, step @ inverse
    return root * trace.sqrt()


class CovarianceHead(nn.Module):
    """Logits (n, classes) of the covariance of a feature map (n, channels, h, w), computed in float32.

    Args:
        channels: of the map.
        classes: outputs.
    """

    upper: torch.Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        kept = min(channels, CHANNELS)
        self.reduce: nn.Module = nn.Identity()
        if kept < channels:
            convolution = nn.Conv2d(channels, kept, 1, bias=False)
            self.reduce = nn.Sequential(convolution, nn.BatchNorm2d(kept))
            nn.init.orthogonal_(convolution.weight)
        upper = torch.triu_indices(kept, kept)
        self.register_buffer("upper", upper, persistent=False)
        self.norm = nn.BatchNorm1d(upper.shape[1], affine=False)
        self.last = nn.Linear(upper.shape[1], classes)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes), float32, of maps (n, channels, h, w) of any precision."""
        with autocast(maps.device, "float32"):
            spread = self.reduce(maps.float()).flatten(2)
            spread = spread - spread.mean(-1, keepdim=True)
            root = matrix_root(spread @ spread.transpose(1, 2) / spread.shape[-1])
            vector = self.norm(root[:, self.upper[0], self.upper[1]])
            return self.last(nn.functional.dropout(vector, DROPOUT, self.training))


class SideHeads(nn.ModuleDict):
    """A covariance head at the end of each stage whose maps are an eighth or a sixteenth of the input's side.

    They listen by hooks, so that a backbone's own tensors keep their names; a backbone without such maps,
    such as a ViT, has none.

    Args:
        backbone: the network; it is changed.
        name: its name.
        size: side of the input.
        classes: outputs.
        probe: runs the backbone once.
    """

    def __init__(self, backbone: nn.Module, name: str, size: int, classes: int, probe: Callable[[], object]) -> None:
        super().__init__()
        self._said: list[torch.Tensor] | None = None
        for place, shape in layout.shapes(backbone, layout.known_stages(backbone, name), probe).items():
            if _suits(shape, size):
                key = place.replace(".", "_")
                self[key] = CovarianceHead(shape[1], classes)
                backbone.get_submodule(place).register_forward_hook(self._hook(key))

    def _hook(self, key: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def listen(_module: nn.Module, _given: object, maps: torch.Tensor) -> None:
            if self._said is not None:
                self._said.append(self[key](maps))

        return listen

    @contextmanager
    def listening(self) -> Iterator[list[torch.Tensor]]:
        """Within it, the heads' logits (n, classes) on what the backbone runs, in the order of the heads."""
        said: list[torch.Tensor] = []
        self._said = said
        try:
            yield said
        finally:
            self._said = None


def _suits(shape: torch.Size, size: int) -> bool:
    if len(shape) != 4 or shape[2] != shape[3] or shape[2] < SMALLEST:
        return False
    return 2 ** round(math.log2(size / shape[2])) in STRIDES


def together(logits: torch.Tensor) -> torch.Tensor:
    """One answer (n, classes) of those of several heads (heads, n, classes): the mean of their log-probabilities."""
    return torch.log_softmax(logits.float(), -1).mean(0)
