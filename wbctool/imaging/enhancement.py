"""Contrast, stain and noise: CLAHE, Reinhard's stain normalisation, non-local means.

Images are RGB, shape (height, width, 3), uint8, and so are the results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from wbctool.errors import ImageError, InputError
from wbctool.imaging.files import read_image
from wbctool.records.storage import read_json

PROFILE = "wbctool.stain-profile/1"

Coordinate = Annotated[float, Strict(), Field(ge=-1e6, le=1e6)]
Spread = Annotated[float, Strict(), Field(ge=0, le=1e6)]


class StainProfile(BaseModel):
    """Mean and standard deviation of L* (0 to 100), a* and b* that images are brought to."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    mean: tuple[Coordinate, Coordinate, Coordinate]
    std: tuple[Spread, Spread, Spread]

    @classmethod
    def of(cls, images: list[np.ndarray]) -> StainProfile:
        """Compute the mean of the statistics of one image or more, RGB, uint8; each counts the same."""
        statistics = np.mean([_statistics(_lab(image)) for image in images], axis=0).tolist()
        mean, std = ([round(value, 4) for value in row] for row in statistics)
        return cls.model_validate({"mean": mean, "std": std})

    def as_json(self) -> dict[str, Any]:
        """Return a JSON object, as `profile.json` holds it."""
        return {"schema": PROFILE, "space": "CIE L*a*b*", "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def read(cls, path: Path) -> StainProfile:
        """Read a profile's JSON file, or measure a reference image; `InputError` where the file is neither."""
        if path.suffix != ".json":
            try:
                return cls.of([read_image(path)])
            except ImageError as error:
                raise InputError(f"--reinhard {error}; give a reference image or a profile.json") from None
        advice = "give an image, or the profile.json of an enhanced folder"
        value = read_json(path, advice)
        try:
            if value.get("schema") == PROFILE:
                return cls.model_validate(value)
        except ValidationError:
            pass
        raise InputError(f"{path}: not a stain profile; {advice}")


def _lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)


def _statistics(lab: np.ndarray) -> np.ndarray:
    mean, std = cv2.meanStdDev(lab)
    return np.stack([mean[:, 0], std[:, 0]])


def reinhard(image: np.ndarray, profile: StainProfile) -> np.ndarray:
    """Bring the mean and standard deviation of each channel of L*a*b* to those of a profile (Reinhard et al. 2001).

    The paper works in lαβ of Ruderman; this is CIE L*a*b*. A channel of constant value is only shifted, and colours
    outside RGB are clipped.
    """
    lab = _lab(image)
    mean, std = _statistics(lab)
    gain = np.where(std > 1e-3, np.array(profile.std) / np.maximum(std, 1e-3), 1.0)
    moved = (lab - mean.astype(np.float32)) * gain.astype(np.float32) + np.array(profile.mean, np.float32)
    rgb = cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def clahe(image: np.ndarray, clip: float = 2.0, tiles: int = 8) -> np.ndarray:
    """Equalise the lightness by contrast-limited adaptive histograms (Zuiderveld 1994) of some tiles a side.

    The limit of the contrast, `clip`, is relative to a flat histogram.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clip, (tiles, tiles)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def non_local_means(image: np.ndarray, strength: float = 5.0) -> np.ndarray:
    """Denoise by non-local means (Buades et al. 2005), windows of 7 and 21 pixels.

    Noise of about `strength` standard deviation is removed, of lightness and colour alike.
    """
    return cv2.fastNlMeansDenoisingColored(image, None, strength, strength, 7, 21)
