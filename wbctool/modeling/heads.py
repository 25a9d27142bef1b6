"""From a feature map to scores: pooling, normalisation, dense layers, dropout; or nearest neighbours."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from wbctool.device import autocast

TEMPERATURE = 0.07  # of the neighbours' votes (Caron et al. 2021, section 4.1)


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
