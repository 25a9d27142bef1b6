"""Colours of nucleus and cytoplasm, in several spaces."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.color import rgb2hed

from wbctool.imaging.colour import background_colour, optical_density
from wbctool.measuring.view import View

_STATISTICS = ("mean", "sd", "skew", "p10", "p90")


def colours(view: View) -> dict[str, float]:
    """Statistics of each channel over nucleus and cytoplasm, and by how much the two differ.

    Channels: absorbance of red, green and blue against the empty slide, which is what stain adds whatever the
    lamp; L*, a*, b*; hue (radians, as its cosine and sine), saturation and value; haematoxylin, eosin and
    DAB (Ruifrok and Johnston 2001).
    """
    channels = _channels(view.image)
    found: dict[str, float] = {}
    for name, channel in channels.items():
        means = {}
        for region, mask in view.regions.items():
            values = channel[mask]
            figures = _statistics(values)
            means[region] = figures["mean"]
            found |= {f"colour.{region}.{name}.{key}": value for key, value in figures.items()}
        if len(means) == 2:
            found[f"colour.difference.{name}"] = means["nucleus"] - means["cytoplasm"]
    return found


def _channels(image: np.ndarray) -> dict[str, np.ndarray]:
    """Each channel, shape (height, width), float32."""
    density = optical_density(image, background_colour(image))
    part = image.astype(np.float32) / 255
    lab = cv2.cvtColor(part, cv2.COLOR_RGB2LAB)
    hue, saturation, value = cv2.split(cv2.cvtColor(part, cv2.COLOR_RGB2HSV))
    stains = rgb2hed(image).astype(np.float32)
    named = {f"density.{name}": density[..., at] for at, name in enumerate(("red", "green", "blue"))}
    named |= {f"lab.{name}": lab[..., at] for at, name in enumerate("Lab")}
    # near grey, hue is noise: it counts by how much colour there is
    angle = np.deg2rad(hue)
    named |= {"hsv.hue_cos": np.cos(angle) * saturation, "hsv.hue_sin": np.sin(angle) * saturation}
    named |= {"hsv.saturation": saturation, "hsv.value": value}
    named |= {f"hed.{name}": stains[..., at] for at, name in enumerate(("haematoxylin", "eosin", "dab"))}
    return named


def _statistics(values: np.ndarray) -> dict[str, float]:
    mean, spread = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    apart = (values - mean) / max(spread, 1e-6)
    skew = float((apart * apart * apart).mean(dtype=np.float64)) if spread > 1e-6 else 0.0
    low, high = np.percentile(values, (10, 90))
    return dict(zip(_STATISTICS, (mean, spread, skew, float(low), float(high)), strict=True))
