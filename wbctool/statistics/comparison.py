"""Paired tests, corrections for many tests, and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test (1947), from how often only one of two was right."""
    count = only_first + only_second
    return 1.0 if count == 0 else float(min(1.0, 2 * special.bdtr(min(only_first, only_second), count, 0.5)))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm 1979), in the order given; NaN stays and does not count."""
    known = [index for index, value in enumerate(values) if not np.isnan(value)]
    corrected, highest = list(values), 0.0
    for rank, index in enumerate(sorted(known, key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(known) - rank) * values[index]))
        corrected[index] = highest
    return corrected


def ranks(values: Sequence[float], lower_is_better: bool = False) -> list[int]:
    """1 for the best; equal values share a rank, NaN comes last."""
    keys = [np.inf if np.isnan(value) else value if lower_is_better else -value for value in values]
    return [1 + sum(other < key for other in keys) for key in keys]
