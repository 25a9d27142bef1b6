"""Segmentation: one small module per method, and their registry."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from wbctool.errors import UsageProblem
from wbctool.segmentation.objects import Objects

METHODS = {
    "stain": "wbctool.segmentation.stain",
    "cyan-otsu": "wbctool.segmentation.cyan_otsu",
}


def find_objects(image: np.ndarray, method: str) -> Objects:
    """Find cells by a method of the registry.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        method: a key of `METHODS`.

    Raises:
        UsageProblem: no method has that name.
    """
    if method not in METHODS:
        raise UsageProblem(f"--method {method}: choose from {', '.join(METHODS)}")
    return import_module(METHODS[method]).segment(image)
