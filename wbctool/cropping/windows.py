"""The window by which a cell is cropped, and the crop itself."""

from __future__ import annotations

import cv2
import numpy as np

Window = tuple[int, int, int, int]  # x, y, width, height in pixels of the image


def roi_window(mask: np.ndarray, margin: float) -> Window:
    """Return the square about a cell: centre by moments, half side its farthest pixel × (1 + margin).

    Source: the attentive-CNN paper, section 2.2, whose margin is 0.3. It may reach outside the image.
    """
    rows, columns = np.nonzero(mask)
    centre_y, centre_x = rows.mean(), columns.mean()
    radius = np.hypot(rows - centre_y, columns - centre_x).max() + 0.5
    half = max(1, int(np.ceil(radius * (1 + margin))))
    return round(centre_x) - half, round(centre_y) - half, 2 * half + 1, 2 * half + 1


def box_window(bbox: list[float], margin: float) -> Window:
    """Return the bounding box of a cell, widened on each side by a fraction of its size, maybe beyond the image."""
    x, y, width, height = bbox
    dx, dy = round(width * margin), round(height * margin)
    return int(x) - dx, int(y) - dy, int(width) + 2 * dx, int(height) + 2 * dy


def cut(image: np.ndarray, window: Window, size: int, labels: bool = False) -> np.ndarray:
    """Cut a window and scale it to size × size pixels.

    Images are padded by reflection and resampled by area (shrinking) or bilinearly; label images
    are padded with background and take the nearest pixel.
    """
    x, y, width, height = window
    rows, columns = image.shape[:2]
    top, left = max(0, -y), max(0, -x)
    bottom, right = max(0, y + height - rows), max(0, x + width - columns)
    if top or left or bottom or right:
        border = cv2.BORDER_CONSTANT if labels else cv2.BORDER_REFLECT_101
        image = cv2.copyMakeBorder(image, top, bottom, left, right, border, value=0)
    cropped = image[y + top : y + top + height, x + left : x + left + width]
    if labels:
        return cv2.resize(cropped, (size, size), interpolation=cv2.INTER_NEAREST)
    shrinking = width >= size and height >= size
    return cv2.resize(cropped, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
