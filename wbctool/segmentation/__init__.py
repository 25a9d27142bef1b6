"""Segmentation: one small module per method, and their registry."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wbctool.errors import UsageProblem

if TYPE_CHECKING:
    import numpy as np

    from wbctool.imaging.label_image import Objects

METHODS = {
    "stain": "wbctool.segmentation.stain",
    "cyan-otsu": "wbctool.segmentation.cyan_otsu",
    "purple-index": "wbctool.segmentation.purple_index",
    "rgb": "wbctool.segmentation.rgb",
    "hsv": "wbctool.segmentation.hsv",
    "lab": "wbctool.segmentation.lab",
    "hed": "wbctool.segmentation.hed",
    "watershed": "wbctool.segmentation.watershed",
    "sam": "wbctool.segmentation.sam",
}

# What constants may be, both ends included; NaN is neither.
LIMITS = {
    "theta": (-1.0, 1.0),
    "hue": (0.0, 360.0),
    "hue_width": (0.0, 180.0),
    "min_saturation": (0.0, 1.0),
    "radius": (0, 99),
    "iterations": (0, 99),
    "min_area": (1.0, 1e9),
    "smooth": (0.0, 99.0),
    "split_peak_share": (0.0, 1.0),
    "split_peak_area": (1.0, 1e9),
    "split_marker_radius": (0, 99),
    "split_cut": (0.0, 1.0),
    "sam_points": (1, 128),
}


def method_module(method: str) -> ModuleType:
    """The module of a method: `segment(image, split, **constants)` and its `CONSTANTS` with their defaults.

    `segment` takes an RGB image (height, width, 3), uint8; the constants of the marker watershed by which touching
    nuclei are split, or None; and its own: radii and σ in pixels, areas in square pixels, thresholds in 0 to 1, hue
    in degrees. It gives `Objects`, whose cells are, but for `stain` and `sam`, their nuclei alone.

    Raises:
        UsageProblem: no method has that name.
    """
    if method not in METHODS:
        raise UsageProblem(f"--method {method}: choose from {', '.join(METHODS)}")
    return import_module(METHODS[method])


def settings_of(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All constants of a method: its defaults, and what is given in their place.

    Args:
        method: a key of `METHODS`.
        given: constants by name; None and False stand for "not given". `split_touching` and the
            constants of the watershed are known to every method.

    Raises:
        UsageProblem: no such method, or it has no such constant.
    """
    from wbctool.segmentation.thresholds import SPLITTING  # the names of methods are wanted without OpenCV

    known = method_module(method).CONSTANTS
    chosen = {name: value for name, value in given.items() if value is not None and value is not False}
    splits = chosen.pop("split_touching", False)
    if splits or method == "watershed":
        known = {**known, **{f"split_{name}": value for name, value in SPLITTING.items()}}
    for name in chosen:
        if name not in known:
            option = "--" + name.replace("_", "-")
            hint = "needs --split-touching" if name.startswith("split_") else f"is not for --method {method}"
            raise UsageProblem(f"{option}: {hint}")
        low, high = LIMITS.get(name, (None, None))
        if low is not None and not low <= chosen[name] <= high:
            option = "--" + name.replace("_", "-")
            raise UsageProblem(f"{option} {chosen[name]}: give a number from {low:g} to {high:g}")
    return {**known, **chosen}


def check_ready(method: str, settings: Mapping[str, Any]) -> None:
    """Find out before any image is read whether a method can work: Segment Anything needs its weights.

    Raises:
        InputError: what it needs is not there, or is something else.
    """
    module = method_module(method)
    if hasattr(module, "load"):
        module.load(settings["sam_checkpoint"], settings["sam_model"], settings["device"])


def find_objects(image: np.ndarray, method: str, settings: Mapping[str, Any] | None = None) -> Objects:
    """Find cells by a method of the registry.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        method: a key of `METHODS`.
        settings: as `settings_of` gives them; None takes the method's defaults.

    Raises:
        UsageProblem: no method has that name, or it has no such constant.
    """
    settings = dict(settings_of(method, {}) if settings is None else settings)
    split = {name[6:]: settings.pop(name) for name in list(settings) if name.startswith("split_")}
    return method_module(method).segment(image, split or None, **settings)
