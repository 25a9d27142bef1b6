"""Images as a network sees them."""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.files import read_image

ROUNDING = 0.5 + 1 / 1024


def to_input(path: str, size: int) -> np.ndarray:
    """An image as a network sees it: RGB, shape (size, size, 3), uint8; scaled, not cropped.

    Raises:
        ImageError: it cannot be read.
    """
    return scaled_to(read_image(path), size)


def scaled_to(image: np.ndarray, size: int) -> np.ndarray:
    """An image brought to a square: by area where neither side is smaller, else linearly; rounded half up.

    In floating point, with what lies within 1/1024 under a half rounded up, too, so that another
    implementation, such as an exported network's own, gives the same.
    """
    shrinking = min(image.shape[:2]) >= size
    way = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    scaled: np.ndarray = cv2.resize(image.astype(np.float32), (size, size), interpolation=way)
    scaled += np.float32(ROUNDING)
    return scaled.astype(np.uint8)  # towards zero; means and interpolations do not leave 0 to 255
