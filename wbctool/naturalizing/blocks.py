"""Replacing part of an image so that the seam lies on JPEG's own block borders wherever it can.

A blend of two textures has less noise than either, and a classifier finds it. Whole 8 × 8 blocks on the grid of the
coding keep the noise, and the quantisation, that they were coded with.
"""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.jpeg import BLOCK

_FEATHER = 0.9  # sigma of the seam where another cell lies in the block, pixels


def of_blocks(mask: np.ndarray) -> np.ndarray:
    """Which 8 × 8 blocks hold a pixel of a mask: shape (height, width) to (⌈height/8⌉, ⌈width/8⌉), bool."""
    height, width = mask.shape
    padded = np.zeros((-(-height // BLOCK) * BLOCK, -(-width // BLOCK) * BLOCK), bool)
    padded[:height, :width] = mask
    return np.logical_or.reduce(padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK), axis=(1, 3))


def of_pixels(blocks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The pixels of blocks: the inverse of `of_blocks`, cut to (height, width)."""
    return blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)[: shape[0], : shape[1]]


def replaced(image: np.ndarray, patch: np.ndarray, wanted: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """An image in which a part is taken from another.

    Args:
        image: shape (height, width, 3), float32 or uint8.
        patch: what takes its place, same shape.
        wanted: the pixels to take, (height, width), bool; whole blocks about them are taken, too.
        kept: pixels that stay (other cells), (height, width), bool. A block with one is taken pixel by
            pixel, with a soft seam.

    Returns:
        The new image, float32, shape (height, width, 3).
    """
    touched, mixed = of_blocks(wanted), of_blocks(kept & ~wanted)
    whole = of_pixels(touched & ~mixed, wanted.shape)
    share: np.ndarray = wanted.astype(np.float32)
    if (touched & mixed).any():
        share = cv2.GaussianBlur(share, (0, 0), _FEATHER)
        share[of_pixels(~mixed, wanted.shape)] = 0
    share[whole] = 1
    return image + (patch.astype(np.float32) - image) * share[..., None]
