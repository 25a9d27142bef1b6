"""From a feature map to scores: pooling, normalisation, dense layers, dropout; or nearest neighbours."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

TEMPERATURE = 0.07  # of the neighbours' votes (Caron et al. 2021, section 4.1)


def pooled(maps: torch.Tensor, how: str) -> torch.Tensor:
    """Feature maps (n, channels, h, w) as vectors (n, channels): `avg`, `max`, or the mean of both, `avgmax`."""
    average, peak = maps.mean((2, 3)), maps.amax((2, 3))
    return {"avg": average, "max": peak, "avgmax": (average + peak) / 2}[how]


def dense_head(width: int, norm: str, dense: tuple[int, ...], dropout: float, classes: int) -> nn.Sequential:
    """Normalisation, hidden layers with ReLU, and the last layer; dropout before each layer.

    Args:
        width: of the vectors.
        norm: `none`, `batch` or `layer`.
        dense: widths of the hidden layers.
        dropout: rate.
        classes: outputs.
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
    """Votes of the nearest stored vectors by cosine similarity, weighted by exp(similarity / 0.07).

    Source: Wu et al. 2018 (instance discrimination), section 3.4; Caron et al. 2021 (DINO).

    Args:
        width: of the vectors.
        classes: outputs.
        count: neighbours that vote.
        stored: vectors that are kept.
    """

    vectors: torch.Tensor
    labels: torch.Tensor

    def __init__(self, width: int, classes: int, count: int, stored: int) -> None:
        super().__init__()
        self.classes, self.count = classes, count
        self.register_buffer("vectors", torch.zeros(stored, width))
        self.register_buffer("labels", torch.zeros(stored, dtype=torch.int64))

    def store(self, vectors: torch.Tensor, labels: torch.Tensor) -> None:
        """Keep the vectors (stored, width) that vote, and their labels (stored,)."""
        self.vectors = functional.normalize(vectors.float(), dim=1).to(self.vectors.device)
        self.labels = labels.to(self.labels.device)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Logarithms of the shares of votes, (n, classes); no vote counts as one in a million."""
        alike = functional.normalize(vectors.float(), dim=1) @ self.vectors.T
        nearest, index = alike.topk(min(self.count, alike.shape[1]), dim=1)
        votes = torch.exp((nearest - 1) / TEMPERATURE)
        shares = torch.zeros(len(vectors), self.classes, device=vectors.device)
        shares.scatter_add_(1, self.labels[index], votes)
        return torch.log(shares / shares.sum(1, keepdim=True) + 1e-6)
