"""The empty slide behind the cells: its smooth light, and its texture where cells were."""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.jpeg import BLOCK
from wbctool.naturalizing.blocks import of_blocks, of_pixels, replaced

_REACH = 4  # pixels about a cell that are no longer clean: its outline and halo
_ROUNDS, _CUT = 4, 2.5  # of the robust fit; residuals over _CUT robust deviations do not count
_OUTLINE, _MISSED = 5, 16  # pixels about a cell that go with it, and in which its ghost is looked for
_GHOST = 12.0  # grey levels from the empty slide at which there is something
_FEWEST = 6  # clean patches that a field needs


def grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """A mask with all pixels within a radius, (height, width), bool."""
    size = 2 * radius + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.dilate(mask.astype(np.uint8), disk) > 0


def emptied(image: np.ndarray, slide: np.ndarray, cells: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A field without some cells: they, their outlines, and what of them the mask has missed, make room for the slide.

    Args:
        image: with cells, shape (height, width, 3), float32.
        slide: without, the same.
        cells: that go, (height, width), bool.
        others: that stay, (height, width), bool.

    Returns:
        RGB, shape (height, width, 3), float32.
    """
    seen = cv2.blur(np.abs(image - slide).max(2), (3, 3)) > _GHOST
    missed = grown(cells, _MISSED) & seen & ~grown(others, 2)
    gone = (grown(cells, _OUTLINE) | grown(missed, 2)) & ~others
    return replaced(image, slide, gone, others | (seen & ~gone))


def _terms(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)


def fit_light(image: np.ndarray, cells: np.ndarray) -> np.ndarray | None:
    """Fit the light of the empty slide: a quadratic surface for each colour, robust to what lies on it.

    Args:
        image: RGB, shape (height, width, 3), float32, on the scale of 0 to 255.
        cells: what is no background, (height, width), bool.

    Returns:
        Coefficients, shape (6, 3), of 1, x, y, x², xy, y² with x and y from −1 to 1 over the image; None
        where next to nothing of the slide is seen.
    """
    height, width = cells.shape
    rows, columns = np.nonzero(~grown(cells, _REACH))
    step = max(1, len(rows) // 4000)
    rows, columns = rows[::step], columns[::step]
    if len(rows) < 200:
        return None
    terms = _terms(columns / width * 2 - 1, rows / height * 2 - 1)
    found = np.empty((6, 3))
    for channel in range(3):
        values = image[rows, columns, channel].astype(np.float64)
        weight = np.ones(len(values), bool)
        for _ in range(_ROUNDS):
            # a little ridge: a field seen only in a corner must not soar in the others
            held = terms[weight]
            found[:, channel] = np.linalg.solve(
                held.T @ held + np.diag([0, 1, 1, 9, 9, 9]) * len(held) / 300, held.T @ values[weight]
            )
            rest = values - terms @ found[:, channel]
            weight = np.abs(rest) <= _CUT * (1.4826 * np.median(np.abs(rest[weight])) + 0.5)
    return found


def light(coefficients: np.ndarray, size: tuple[int, int], window: tuple[int, int, int, int]) -> np.ndarray:
    """The light in a window of a field.

    Args:
        coefficients: of `fit_light`.
        size: width and height of the field.
        window: x, y, width, height.

    Returns:
        RGB, shape (height, width, 3), float32, in grey levels.
    """
    left, top, width, height = window
    x = (np.arange(left, left + width) / size[0] * 2 - 1).astype(np.float32)
    y = (np.arange(top, top + height) / size[1] * 2 - 1).astype(np.float32)[:, None]
    c = coefficients.astype(np.float32)
    along = c[0] + x[:, None] * c[1] + (x * x)[:, None] * c[3]  # (width, 3)
    return along + y[..., None] * (c[2] + x[:, None] * c[4]) + (y * y)[..., None] * c[5]


class CleanSlide:
    """A field's empty slide, drawn from its own clean patches.

    Args:
        image: RGB, shape (height, width, 3), float32, on the scale of 0 to 255.
        cells: what is no background, (height, width), bool.
        coefficients: of `fit_light`.
        rng: chooses the patches.

    Attributes:
        everywhere: a field of nothing but slide, shape (height, width, 3), float32.
        enough: whether there were clean patches enough to draw it.
    """

    def __init__(
        self, image: np.ndarray, cells: np.ndarray, coefficients: np.ndarray, rng: np.random.Generator
    ) -> None:
        height, width = cells.shape
        smooth = light(coefficients, (width, height), (0, 0, width, height))
        rest = image - smooth
        dirty = of_blocks(grown(cells, _REACH))
        dirty |= _odd_blocks(rest, dirty)
        rows, columns = dirty.shape
        full = np.ones_like(dirty)  # blocks cut by the edge are no source
        full[height // BLOCK :], full[:, width // BLOCK :] = False, False
        clean = full & ~dirty
        side = 2 if _corners(clean, 2).sum() >= 4 * _FEWEST else 1
        corners = np.argwhere(_corners(clean, side))
        self.enough = len(corners) >= _FEWEST
        self.everywhere = smooth
        if not self.enough:
            return
        # what the surface leaves over in the clean blocks is carried smoothly into the others
        means = _diffused(_block_means(rest, clean), clean)
        drawn = np.zeros_like(rest)
        for top in range(0, rows, side):
            for left in range(0, columns, side):
                near = np.abs(corners - (top, left)).sum(1)
                pick = corners[rng.choice(np.argsort(near, kind="stable")[: 4 * _FEWEST])] * BLOCK
                y, x = top * BLOCK, left * BLOCK
                tall, wide = min(side * BLOCK, height - y), min(side * BLOCK, width - x)
                patch = rest[pick[0] : pick[0] + side * BLOCK, pick[1] : pick[1] + side * BLOCK]
                patch = patch.reshape(side, BLOCK, side, BLOCK, 3)
                patch = (patch - patch.mean((1, 3), keepdims=True)).reshape(side * BLOCK, side * BLOCK, 3)
                drawn[y : y + tall, x : x + wide] = patch[:tall, :wide]
        drawn += means.repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width]
        self.everywhere = replaced(image, smooth + drawn, of_pixels(dirty | ~full, cells.shape), np.zeros_like(cells))


def _corners(clean: np.ndarray, side: int) -> np.ndarray:
    """Upper left corners of squares of blocks that are all clean."""
    if side == 1:
        return clean
    square = np.zeros_like(clean)
    square[:-1, :-1] = clean[:-1, :-1] & clean[1:, :-1] & clean[:-1, 1:] & clean[1:, 1:]
    return square


def _odd_blocks(rest: np.ndarray, dirty: np.ndarray) -> np.ndarray:
    """Blocks that are no empty slide although no cell was found there: dust, debris, ghosts."""
    deviation = np.abs(_block_means(rest, np.ones_like(dirty))).max(2)
    spread = np.sqrt(np.maximum(_block_means(rest**2, np.ones_like(dirty)).max(2), 1e-6))
    known = ~dirty
    if not known.any():
        return np.zeros_like(dirty)
    far = deviation > 4 * np.median(deviation[known]) + 3
    rough = spread > 3 * np.median(spread[known]) + 1
    return far | rough


def _block_means(rest: np.ndarray, held: np.ndarray) -> np.ndarray:
    rows, columns = held.shape
    padded = cv2.copyMakeBorder(
        rest, 0, rows * BLOCK - rest.shape[0], 0, columns * BLOCK - rest.shape[1], cv2.BORDER_REFLECT_101
    )
    means = padded.reshape(rows, BLOCK, columns, BLOCK, 3).mean((1, 3))
    means[~held] = 0
    return means.astype(np.float32)


def _diffused(means: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Fill what is not held from its surroundings, from coarse to fine (normalised convolution)."""
    filled, missing = means.copy(), ~held
    for sigma in (1.5, 3.0, 6.0, 12.0, 24.0):
        if not missing.any():
            break
        weight = cv2.GaussianBlur(held.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        carried = cv2.GaussianBlur(means, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        reached = missing & (weight > 0.05)
        filled[reached] = carried[reached] / weight[reached][:, None]
        missing &= ~reached
    return filled
