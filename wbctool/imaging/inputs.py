"""Images as a network sees them."""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.files import read_image


def to_input(path: str, size: int) -> np.ndarray:
    """An image as a network sees it: RGB, shape (size, size, 3), uint8; scaled, not cropped.

    Raises:
        ImageError: it cannot be read.
    """
    image = read_image(path)
    shrinking = min(image.shape[:2]) >= size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
