"""Paired tests, corrections for many tests, and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the exact two-sided p-value of McNemar's test (1947), of the images that only one of two gets correct."""
    count = only_first + only_second  # below as scipy.stats.binomtest has it, which takes half a second to import
    return float(min(1.0, 2 * special.bdtr(min(only_first, only_second), count, 0.5))) if count else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979), in the order given; NaN stays and does not count.

    By hand, as `scipy.stats` corrects by Benjamini–Hochberg and –Yekutieli only.
    """
    known = [index for index, value in enumerate(values) if not np.isnan(value)]
    corrected, highest = list(values), 0.0
    for rank, index in enumerate(sorted(known, key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(known) - rank) * values[index]))
        corrected[index] = highest
    return corrected


def ranks(values: Sequence[float], lower_is_better: bool = False) -> list[int]:
    """Rank values, 1 for the best; equal values share a rank, NaN comes last."""
    keys = [np.inf if np.isnan(value) else value if lower_is_better else -value for value in values]
    return [1 + sum(other < key for other in keys) for key in keys]
