"""Split conformal prediction: sets of classes that hold the true one with a chosen probability.

The guarantee holds for images that are exchangeable with those of validation: of one laboratory, stain and scanner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_ROUNDED = 1e-5  # relative, by which probabilities in records are rounded at most


@dataclass(frozen=True)
class PredictionSets:
    """Which classes are in the prediction set of an image.

    Attributes:
        coverage: probability with which sets hold the true class, 0 to 1.
        least: probability from which a class is in the set.
    """

    coverage: float
    least: Mapping[str, float]

    @classmethod
    def fit(
        cls, classes: Sequence[str], truth: np.ndarray, probabilities: np.ndarray, coverage: float
    ) -> PredictionSets:
        """Fit sets to validation images: class indices (n,), -1 for other classes, and probabilities (n, classes).

        The score is the probability of the true class (Sadinle et al. 2019). A class has a limit of its own where it
        has images enough (Vovk 2012), else that of all images.

        Raises:
            ValueError: there are too few images in all.
        """
        known = truth >= 0
        scores = probabilities[np.flatnonzero(known), truth[known]]
        overall = _limit(scores, coverage)
        if overall is None:
            raise ValueError(f"{math.ceil(coverage / (1 - coverage))} images are needed, and there are {len(scores)}")
        limits = [_limit(scores[truth[known] == number], coverage) for number in range(len(classes))]
        return cls(coverage, {n: overall if limit is None else limit for n, limit in zip(classes, limits, strict=True)})

    def of(self, probabilities: Mapping[str, float]) -> list[str]:
        """The prediction set of an image, the most probable class first; it holds that one in any case."""
        ranked = sorted(probabilities, key=lambda name: -probabilities[name])
        return ranked[:1] + [name for name in ranked[1:] if probabilities[name] >= self.least[name] * (1 - _ROUNDED)]


def _limit(scores: np.ndarray, coverage: float) -> float | None:
    """The largest limit that enough scores reach for a new one to reach it, too; None of too few scores."""
    needed = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(np.sort(scores)[len(scores) - needed]) if needed <= len(scores) else None
