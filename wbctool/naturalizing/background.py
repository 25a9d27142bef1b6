"""The background of a field of view: its smooth illumination, and its texture in place of the cells.

Images are RGB, shape (height, width, 3), float32, on the scale of 0 to 255; masks are (height, width), bool.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from wbctool.imaging.jpeg import BLOCK

_HALO = 4  # pixels around a cell that show its outline and halo, not the background
_ROUNDS, _CUT = 4, 2.5  # of the robust fit; residuals over _CUT robust standard deviations are left out
_OUTLINE, _MISSED = 5, 16  # pixels around a cell that are removed with it, and that are searched for its remains
_VISIBLE = 12.0  # difference from the background at which something is there, grey levels
_FEATHER = 0.9  # sigma of the seam in blocks that contain another cell, pixels
_MIN_PATCHES = 6  # clean patches that a field needs


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return a mask with all pixels within a radius."""
    size = 2 * radius + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.dilate(mask.astype(np.uint8), disk) > 0


def touched_blocks(mask: np.ndarray) -> np.ndarray:
    """Return which 8 × 8 blocks contain a pixel of a mask: (height, width) to (⌈height/8⌉, ⌈width/8⌉), bool."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % BLOCK), (0, -width % BLOCK)))
    return np.logical_or.reduce(padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK), axis=(1, 3))


def expand_blocks(blocks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return an array with the value of its block at each pixel, cut to (height, width)."""
    return blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)[: shape[0], : shape[1]]


def replace_region(image: np.ndarray, patch: np.ndarray, region: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Replace a region of an image by that of another, with the seam on the block borders of JPEG wherever possible.

    A blend of two textures has less noise than either, and a classifier detects it. Whole 8 × 8 blocks on the grid of
    the coding keep their noise and their quantisation. Only blocks that contain pixels to keep, such as other cells,
    are replaced pixel by pixel, with a soft seam. The images may be uint8, too; the new one is float32.
    """
    touched, mixed = touched_blocks(region), touched_blocks(keep & ~region)
    whole = expand_blocks(touched & ~mixed, region.shape)
    alpha: np.ndarray = region.astype(np.float32)
    if (touched & mixed).any():
        alpha = cv2.GaussianBlur(alpha, (0, 0), _FEATHER)
        alpha[expand_blocks(~mixed, region.shape)] = 0
    alpha[whole] = 1
    return image + (patch.astype(np.float32) - image) * alpha[..., None]


def remove_cells(image: np.ndarray, background: np.ndarray, cells: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Replace cells by background, with their outlines and what their mask has missed; other cells stay."""
    visible = cv2.blur(np.abs(image - background).max(2), (3, 3)) > _VISIBLE
    missed = dilate(cells, _MISSED) & visible & ~dilate(others, 2)
    removed = (dilate(cells, _OUTLINE) | dilate(missed, 2)) & ~others
    return replace_region(image, background, removed, others | (visible & ~removed))


def fit_illumination(image: np.ndarray, cells: np.ndarray) -> np.ndarray | None:
    """Fit the illumination of the background: a quadratic surface per colour channel, robust to debris.

    Returns coefficients, shape (6, 3), of 1, x, y, x², xy, y² with x and y from −1 to 1 over the image; None if hardly
    any background is visible.
    """
    height, width = cells.shape
    rows, columns = np.nonzero(~dilate(cells, _HALO))
    step = max(1, len(rows) // 4000)
    rows, columns = rows[::step], columns[::step]
    if len(rows) < 200:
        return None
    x, y = columns / width * 2 - 1, rows / height * 2 - 1
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    coefficients = np.empty((6, 3))
    for channel in range(3):
        values = image[rows, columns, channel].astype(np.float64)
        used = np.ones(len(values), bool)
        for _ in range(_ROUNDS):
            # slightly regularised: background that is visible in one corner only must not be extrapolated steeply
            matrix = terms[used]
            ridge = np.diag([0, 1, 1, 9, 9, 9]) * len(matrix) / 300
            coefficients[:, channel] = np.linalg.solve(matrix.T @ matrix + ridge, matrix.T @ values[used])
            residuals = values - terms @ coefficients[:, channel]
            used = np.abs(residuals) <= _CUT * (1.4826 * np.median(np.abs(residuals[used])) + 0.5)
    return coefficients


def illumination(coefficients: np.ndarray, size: tuple[int, int], window: tuple[int, int, int, int]) -> np.ndarray:
    """Return the illumination of a window (x, y, width, height) of a field (width, height), as an image."""
    left, top, width, height = window
    x = (np.arange(left, left + width) / size[0] * 2 - 1).astype(np.float32)
    y = (np.arange(top, top + height) / size[1] * 2 - 1).astype(np.float32)[:, None]
    c = coefficients.astype(np.float32)
    along = c[0] + x[:, None] * c[1] + (x * x)[:, None] * c[3]  # (width, 3)
    return along + y[..., None] * (c[2] + x[:, None] * c[4]) + (y * y)[..., None] * c[5]


def synthesize_background(
    image: np.ndarray, cells: np.ndarray, coefficients: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Draw a field without cells: where cells were, with the texture of clean patches nearby.

    Returns None if the field has too few clean patches.
    """
    height, width = cells.shape
    smooth = illumination(coefficients, (width, height), (0, 0, width, height))
    residual = image - smooth
    dirty = touched_blocks(dilate(cells, _HALO))
    dirty |= _unusual_blocks(residual, dirty)
    complete = np.ones_like(dirty)  # blocks cut by the edge of the image are no source
    complete[height // BLOCK :], complete[:, width // BLOCK :] = False, False
    clean = complete & ~dirty
    side = 2 if len(_clean_squares(clean, 2)) >= 4 * _MIN_PATCHES else 1
    corners = _clean_squares(clean, side)
    if len(corners) < _MIN_PATCHES:
        return None
    # what the smooth surface does not explain in the clean blocks is interpolated for the others
    means = _interpolate(np.where(clean[..., None], _block_means(residual), np.float32(0)), clean)
    texture = _texture(residual, corners, side, dirty.shape, rng) + expand_blocks(means, cells.shape)
    return replace_region(image, smooth + texture, expand_blocks(dirty | ~complete, cells.shape), np.zeros_like(cells))


def _texture(
    residual: np.ndarray, corners: np.ndarray, side: int, blocks: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Fill a field with patches of `side` × `side` clean blocks, each from nearby and with its block means removed."""
    height, width = residual.shape[:2]
    texture = np.zeros_like(residual)
    for top in range(0, blocks[0], side):
        for left in range(0, blocks[1], side):
            distance = np.abs(corners - (top, left)).sum(1)
            corner = corners[rng.choice(np.argsort(distance, kind="stable")[: 4 * _MIN_PATCHES])] * BLOCK
            y, x = top * BLOCK, left * BLOCK
            patch = residual[corner[0] : corner[0] + side * BLOCK, corner[1] : corner[1] + side * BLOCK]
            patch = patch.reshape(side, BLOCK, side, BLOCK, 3)
            patch = (patch - patch.mean((1, 3), keepdims=True)).reshape(side * BLOCK, side * BLOCK, 3)
            texture[y : y + side * BLOCK, x : x + side * BLOCK] = patch[: height - y, : width - x]
    return texture


def _clean_squares(clean: np.ndarray, side: int) -> np.ndarray:
    """Return the upper left corners of all squares of `side` × `side` clean blocks, (n, 2): row and column."""
    squares = sliding_window_view(np.pad(clean, (0, side - 1)), (side, side))
    return np.argwhere(squares.all((2, 3)))


def _unusual_blocks(residual: np.ndarray, dirty: np.ndarray) -> np.ndarray:
    """Find blocks that are not background although no cell was found in them: dust, debris, remains of cells."""
    deviation = np.abs(_block_means(residual)).max(2)
    spread = np.sqrt(np.maximum(_block_means(residual**2).max(2), 1e-6))
    known = ~dirty
    if not known.any():
        return np.zeros_like(dirty)
    far = deviation > 4 * np.median(deviation[known]) + 3
    rough = spread > 3 * np.median(spread[known]) + 1
    return far | rough


def _block_means(residual: np.ndarray) -> np.ndarray:
    """Return the mean of each block, shape (rows, columns, 3), float32."""
    height, width = residual.shape[:2]
    padded = cv2.copyMakeBorder(residual, 0, -height % BLOCK, 0, -width % BLOCK, cv2.BORDER_REFLECT_101)
    means = padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK, 3).mean((1, 3))
    return means.astype(np.float32)


def _interpolate(means: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill unknown blocks from their surroundings, from fine to coarse, by normalised convolution."""
    filled, missing = means.copy(), ~known
    for sigma in (1.5, 3.0, 6.0, 12.0, 24.0):
        if not missing.any():
            break
        weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        blurred = cv2.GaussianBlur(means, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        reached = missing & (weight > 0.05)
        filled[reached] = blurred[reached] / weight[reached][:, None]
        missing &= ~reached
    return filled
