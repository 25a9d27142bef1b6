"""Images as the input of a network."""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.files import read_image

ROUNDING = 0.5 + 1 / 1024


def to_input(path: str, size: int) -> np.ndarray:
    """Read an image as a network takes it: RGB, shape (size, size, 3), uint8; scaled, not cropped."""
    return scaled_to(read_image(path), size)


def scaled_to(image: np.ndarray, size: int) -> np.ndarray:
    """Scale an image to a square: by area where neither side is smaller, else linearly; rounded half up.

    Values within 1/1024 below a half are rounded up, too, so that another implementation in floating point, such as
    that of an exported network, gives the same.
    """
    interpolation = cv2.INTER_AREA if min(image.shape[:2]) >= size else cv2.INTER_LINEAR
    scaled: np.ndarray = cv2.resize(image.astype(np.float32), (size, size), interpolation=interpolation)
    scaled += np.float32(ROUNDING)
    return scaled.astype(np.uint8)  # towards zero; means and interpolations stay within 0 to 255
