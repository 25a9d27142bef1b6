"""From feature maps to scores: pooling and dense layers, nearest neighbours, and heads on the covariance of maps.

What tells white cells apart is often texture: chromatin, granules. The covariance of the channels over a map half-way
keeps which of them fire together, where their mean keeps only how much each does. Each such head is trained by its own
loss (Lee et al. 2015, deeply supervised nets), and the log-probabilities of all heads are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from wbctool.device import autocast
from wbctool.modeling import layout

TEMPERATURE = 0.07  # of the neighbours' votes (Caron et al. 2021, section 4.1)
STRIDES = (8, 16)  # approximate strides of the maps: deep enough to be informative, fine enough to show texture
SMALLEST = 4  # side of the smallest map, pixels
CHANNELS = 64  # to which wider maps are reduced
DROPOUT = 0.5
ITERATIONS = 5  # of Newton and Schulz; the source's


def pooled(maps: torch.Tensor, method: str) -> torch.Tensor:
    """Pool feature maps (n, channels, h, w) to vectors (n, channels): `avg`, `max`, or the mean of both, `avgmax`."""
    average, maximum = maps.mean((2, 3)), maps.amax((2, 3))
    return {"avg": average, "max": maximum, "avgmax": (average + maximum) / 2}[method]


def dense_head(width: int, norm: str, dense: tuple[int, ...], dropout: float, classes: int) -> nn.Sequential:
    """Return a normalisation (`none`, `batch` or `layer`), hidden layers with ReLU, and the last layer.

    Dropout comes before each layer. `width` is that of the vectors, `dense` has those of the hidden layers.
    """
    head = nn.Sequential()
    if norm != "none":
        head.append(nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width))
    for hidden in dense:
        head.extend([nn.Dropout(dropout), nn.Linear(width, hidden), nn.ReLU()])
        width = hidden
    head.extend([nn.Dropout(dropout), nn.Linear(width, classes)])
    return head


class NearestNeighbours(nn.Module):
    """Votes of the `count` nearest stored vectors by cosine similarity, weighted by exp(similarity / 0.07).

    Source: Wu et al. 2018 (instance discrimination), section 3.4; Caron et al. 2021 (DINO).
    """

    vectors: torch.Tensor
    labels: torch.Tensor

    def __init__(self, width: int, classes: int, count: int, stored: int) -> None:
        super().__init__()
        self.classes, self.count = classes, count
        self.register_buffer("vectors", torch.zeros(stored, width))
        self.register_buffer("labels", torch.zeros(stored, dtype=torch.int64))

    def store(self, vectors: torch.Tensor, labels: torch.Tensor) -> None:
        """Keep vectors (stored, width) and their labels (stored,)."""
        self.vectors = functional.normalize(vectors.float(), dim=1).to(self.vectors.device)
        self.labels = labels.to(self.labels.device)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return log fractions of the votes, (n, classes), float32; no vote counts as one in a million."""
        with autocast(vectors.device, "float32"):  # bfloat16 would tell near vectors apart too coarsely
            similarity = functional.normalize(vectors.float(), dim=1) @ self.vectors.T
            nearest, index = similarity.topk(min(self.count, similarity.shape[1]), dim=1)
            votes = torch.zeros(len(vectors), self.classes, device=vectors.device)
            votes.scatter_add_(1, self.labels[index], torch.exp((nearest - 1) / TEMPERATURE))
            return torch.log(votes / votes.sum(1, keepdim=True) + 1e-6)


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
            return self.last(functional.dropout(vector, DROPOUT, self.training))


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
