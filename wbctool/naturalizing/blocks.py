"""Replacing a region of an image so that the seam lies on the block borders of JPEG wherever possible.

A blend of two textures has less noise than either, and a classifier detects it. Whole 8 × 8 blocks on the grid of the
coding keep their noise and their quantisation.
"""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.jpeg import BLOCK

_FEATHER = 0.9  # sigma of the seam in blocks that contain another cell, pixels


def touched_blocks(mask: np.ndarray) -> np.ndarray:
    """Return which 8 × 8 blocks contain a pixel of a mask: (height, width) to (⌈height/8⌉, ⌈width/8⌉), bool."""
    height, width = mask.shape
    padded = np.zeros((-(-height // BLOCK) * BLOCK, -(-width // BLOCK) * BLOCK), bool)
    padded[:height, :width] = mask
    return np.logical_or.reduce(padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK), axis=(1, 3))


def expand_blocks(blocks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return an array with the value of its block at each pixel, cut to (height, width)."""
    return blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)[: shape[0], : shape[1]]


def replace_region(image: np.ndarray, patch: np.ndarray, region: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Replace a region of an image by that of another image.

    Args:
        image: shape (height, width, 3), float32 or uint8.
        patch: the other image, same shape.
        region: pixels to replace, (height, width), bool; the blocks that they touch are replaced whole.
        keep: pixels that stay, such as other cells, (height, width), bool. Blocks that contain any are replaced pixel
            by pixel, with a soft seam.

    Returns:
        The new image, float32, shape (height, width, 3).
    """
    touched, mixed = touched_blocks(region), touched_blocks(keep & ~region)
    whole = expand_blocks(touched & ~mixed, region.shape)
    alpha: np.ndarray = region.astype(np.float32)
    if (touched & mixed).any():
        alpha = cv2.GaussianBlur(alpha, (0, 0), _FEATHER)
        alpha[expand_blocks(~mixed, region.shape)] = 0
    alpha[whole] = 1
    return image + (patch.astype(np.float32) - image) * alpha[..., None]
