"""Scores of maps: where the energy and the peak lie, and how far two maps agree."""

from __future__ import annotations

import numpy as np

from wbctool.explaining.regions import Regions


def energy(map_: np.ndarray, regions: Regions) -> dict[str, float | None]:
    """Compute the fraction of a map's sum inside each region. By chance it is the fraction of the area.

    Source: the energy-based pointing game of Wang et al. 2020 (Score-CAM), section 4.3, with regions for boxes.

    Args:
        map_: (size, size), not negative.
        regions: by name, each (size, size), 0 to 1.

    Returns:
        0 to 1; None for a map that is 0 everywhere.
    """
    total = float(map_.sum(dtype=np.float64))
    if total <= 0:
        return dict.fromkeys(regions)
    return {name: float((map_ * region).sum(dtype=np.float64)) / total for name, region in regions.items()}


def pointing(map_: np.ndarray, regions: Regions) -> dict[str, bool | None]:
    """Tell whether most of a map's highest pixel lies in each region (Zhang et al. 2018, without a tolerance).

    Returns:
        None for a map that is 0 everywhere.
    """
    if not map_.any():
        return dict.fromkeys(regions)
    peak = np.unravel_index(int(map_.argmax()), map_.shape)
    return {name: bool(region[peak] >= 0.5) for name, region in regions.items()}


def agreement(one: np.ndarray, other: np.ndarray) -> float | None:
    """Compute Pearson's correlation of the pixels of two maps, -1 to 1; None where one is constant."""
    first, second = (map_.ravel().astype(np.float64) - map_.mean(dtype=np.float64) for map_ in (one, other))
    spread = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / spread if spread > 0 else None
