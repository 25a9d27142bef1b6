"""Contrast, stain and noise: CLAHE, Reinhard's stain normalisation, non-local means.

Images are RGB, shape (height, width, 3), uint8, and so are the results.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import cv2
import numpy as np

from wbctool.errors import ImageError, InputError
from wbctool.imaging.files import read_image
from wbctool.records.storage import read_json

PROFILE = "wbctool.stain-profile/1"


@dataclass(frozen=True)
class StainProfile:
    """Mean and standard deviation of L* (0 to 100), a* and b* that images are brought to; each of three numbers."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, images: list[np.ndarray]) -> StainProfile:
        """The mean of the statistics of one image or more, RGB, uint8; each counts alike."""
        statistics = np.mean([_statistics(_lab(image)) for image in images], axis=0)
        mean, std = ([round(float(value), 4) for value in row] for row in statistics)
        return cls(_three(mean), _three(std))

    def as_json(self) -> dict[str, Any]:
        """A small object that training and prediction can share."""
        return {"schema": PROFILE, "space": "CIE L*a*b*", "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def read(cls, path: Path) -> StainProfile:
        """From a profile's JSON file, or measured on a reference image.

        Raises:
            InputError: it is neither.
        """
        if path.suffix != ".json":
            try:
                return cls.of([read_image(path)])
            except ImageError as error:
                raise InputError(f"--reinhard {error}; give a reference image or a profile.json") from None
        advice = "give an image, or the profile.json of an enhanced folder"
        value = read_json(path, advice)
        mean, std = value.get("mean"), value.get("std")
        if value.get("schema") != PROFILE or not _are_three(mean) or not _are_three(std) or min(std) < 0:
            raise InputError(f"{path}: is no stain profile; {advice}")
        return cls(_three(map(float, mean)), _three(map(float, std)))


def _are_three(row: object) -> TypeGuard[list[float]]:
    return isinstance(row, list) and len(row) == 3 and all(isinstance(v, int | float) and abs(v) < 1e6 for v in row)


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)


def _statistics(lab: np.ndarray) -> np.ndarray:
    mean, std = cv2.meanStdDev(lab)
    return np.stack([mean[:, 0], std[:, 0]])


def reinhard(image: np.ndarray, profile: StainProfile) -> np.ndarray:
    """Bring the mean and spread of each channel of L*a*b* to those of a profile (Reinhard et al. 2001).

    The paper works in lαβ of Ruderman; this is CIE L*a*b*. A channel without spread is only shifted.

    Args:
        image: RGB, (height, width, 3), uint8.
        profile: what it is brought to.

    Returns:
        Of its shape, uint8; what lies outside RGB is clipped.
    """
    lab = _lab(image)
    mean, std = _statistics(lab)
    gain = np.where(std > 1e-3, np.array(profile.std) / np.maximum(std, 1e-3), 1.0)
    moved = (lab - mean.astype(np.float32)) * gain.astype(np.float32) + np.array(profile.mean, np.float32)
    shares = cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.round(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def clahe(image: np.ndarray, clip: float = 2.0, tiles: int = 8) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation of the lightness (Zuiderveld 1994).

    Args:
        image: RGB, uint8.
        clip: limit of the contrast, over 0, relative to a flat histogram.
        tiles: a side, 1 or more.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clip, (tiles, tiles)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def non_local_means(image: np.ndarray, strength: float = 5.0) -> np.ndarray:
    """Denoise by non-local means (Buades et al. 2005), windows of 7 and 21 pixels.

    Args:
        image: RGB, uint8.
        strength: of lightness and colour alike; noise of about this deviation goes.
    """
    return cv2.fastNlMeansDenoisingColored(image, None, strength, strength, 7, 21)
