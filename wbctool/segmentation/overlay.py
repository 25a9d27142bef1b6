"""Outlines of objects, drawn on the image."""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.label_image import Objects

COLOURS = {"wbc": (0, 200, 0), "nucleus": (255, 220, 0), "rbc": (255, 140, 0), "platelet": (0, 60, 255)}
RIDGE = (255, 0, 0)


def overlay(image: np.ndarray, objects: Objects) -> np.ndarray:
    """Draw outlines on an image: white cells green, nuclei yellow, red cells orange, platelets blue.

    Ridges along which touching objects were split are red, as in the EfficientNetV2-S paper.
    """
    drawn = np.ascontiguousarray(image.copy())
    width = max(1, round(max(image.shape[:2]) / 500))
    groups = [
        ("rbc", objects.red_cells),
        ("platelet", objects.platelets),
        ("wbc", [whole for whole, _ in objects.cells]),
        ("nucleus", [nucleus for _, nucleus in objects.cells]),
    ]
    for kind, regions in groups:
        for region in regions:
            contours, _ = cv2.findContours(
                region.mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(region.x, region.y)
            )
            cv2.drawContours(drawn, contours, -1, COLOURS[kind], width)
    if objects.ridges is not None:
        drawn[objects.ridges > 0] = RIDGE
    return drawn
