"""Colours of nucleus and cytoplasm, in several spaces."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.color import rgb2hed

from wbctool.measuring.view import CellView

_STATISTICS = ("mean", "sd", "skew", "p10", "p90")


def colours(view: CellView) -> dict[str, float]:
    """Compute statistics of each channel over nucleus and cytoplasm, and the difference of their means.

    Channels: absorbance of red, green and blue against the background, which does not depend on the lamp; L*, a*, b*;
    hue (radians, as its cosine and sine), saturation and value; haematoxylin, eosin and DAB (Ruifrok and Johnston
    2001).
    """
    measures: dict[str, float] = {}
    for name, channel in _channels(view).items():
        means = {}
        for region, mask in view.regions.items():
            figures = _statistics(channel[mask])
            means[region] = figures["mean"]
            measures |= {f"colour.{region}.{name}.{key}": value for key, value in figures.items()}
        if len(means) == 2:
            measures[f"colour.difference.{name}"] = means["nucleus"] - means["cytoplasm"]
    return measures


def _channels(view: CellView) -> dict[str, np.ndarray]:
    """Each channel, shape (height, width), float32."""
    rgb = view.image.astype(np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    hue, saturation, value = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV))
    stains = rgb2hed(view.image).astype(np.float32)
    channels = {f"density.{name}": view.density[..., at] for at, name in enumerate(("red", "green", "blue"))}
    channels |= {f"lab.{name}": lab[..., at] for at, name in enumerate("Lab")}
    # near grey, hue is noise: it is weighted by saturation
    angle = np.deg2rad(hue)
    channels |= {"hsv.hue_cos": np.cos(angle) * saturation, "hsv.hue_sin": np.sin(angle) * saturation}
    channels |= {"hsv.saturation": saturation, "hsv.value": value}
    channels |= {f"hed.{name}": stains[..., at] for at, name in enumerate(("haematoxylin", "eosin", "dab"))}
    return channels


def _statistics(values: np.ndarray) -> dict[str, float]:
    mean, sd = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    z = (values - mean) / max(sd, 1e-6)
    skew = float((z * z * z).mean(dtype=np.float64)) if sd > 1e-6 else 0.0
    low, high = np.percentile(values, (10, 90))
    return dict(zip(_STATISTICS, (mean, sd, skew, float(low), float(high)), strict=True))
