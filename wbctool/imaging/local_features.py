"""Finding turned, sheared, mirrored or cut-out copies of an image among many, by the places that look alike.

Places and what they look like are SIFT's (Lowe 2004) in RootSIFT's scale (Arandjelović and Zisserman 2012), a
place and its mirror image described alike. Descriptions that fall together under random projections are
compared; two images are copies where many places of one lie in the other under one affine map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

PLACES = 128  # of an image, at most
SIDE = 320  # pixels to which larger images are brought
ENOUGH = 10  # places that agree; of images that are no copies, fewer than 5 do
_WIDTH = 32  # numbers of a description that are kept
_ALIKE = 0.3  # distance of two descriptions of unit length
_TABLES, _BITS_MORE = 6, 3  # projections: so many bits more than it takes to number all descriptions
_NEIGHBOURS = 64  # that are compared within one bucket
_STRAY = 4.0  # pixels from where an affine map puts a place
_STRETCH = 2.0  # most that it may stretch or shrink
_SMALLER = 4  # so many times smaller is the picture that is compared
_LEAST, _SAME = 30, 0.7  # pixels of it that lie between the places, and how alike they are
_WIDE = 0.12  # share of one of the images that lies between them: a red cell is like another
_CELL = 8  # pixels; places nearer to one another count once
_SAMPLE = 20_000  # descriptions of which the main directions are taken


class Seen(NamedTuple):
    """What is kept of an image.

    Attributes:
        places: where its clearest places are, x and y in pixels of the image at 320 pixels, shape (k, 2), float32.
        looks: what they look like, of unit length, shape (k, 128), float16.
        small: the image in grey, at a quarter of those pixels, uint8.
    """

    places: np.ndarray
    looks: np.ndarray
    small: np.ndarray


NOTHING = Seen(np.empty((0, 2), np.float32), np.empty((0, 128), np.float16), np.zeros((1, 1), np.uint8))


def describe(image: np.ndarray) -> Seen:
    """The clearest places of an image, RGB, shape (height, width, 3), uint8."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = SIDE / max(grey.shape)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in grey.shape[::-1]]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    points, looks = cv2.SIFT.create(PLACES, contrastThreshold=0.02).detectAndCompute(grey, None)
    if looks is None:
        return NOTHING
    small = cv2.resize(grey, None, fx=1 / _SMALLER, fy=1 / _SMALLER, interpolation=cv2.INTER_AREA)
    places = np.array([point.pt for point in points[:PLACES]], np.float32)
    return Seen(places, _mirrorless(looks[:PLACES]).astype(np.float16), small)


def _mirrorless(looks: np.ndarray) -> np.ndarray:
    # A mirrored place has rows of cells in reverse and angles negated. Of the two, the one is taken that has more
    # of a fixed random direction.
    roots = np.sqrt(looks / np.maximum(looks.sum(axis=1, keepdims=True), 1e-9)).reshape(-1, 4, 4, 8)
    mirrored = roots[:, ::-1][..., -np.arange(8) % 8].reshape(-1, 128)
    roots = roots.reshape(-1, 128)
    side = np.random.default_rng(5).normal(size=128).astype(np.float32)
    return np.where((roots @ side >= mirrored @ side)[:, None], roots, mirrored)


def copies(images: Sequence[Seen]) -> np.ndarray:
    """Pairs of images that show the same, without comparing each with each.

    Returns:
        Rows (i, j) with i < j, sorted, shape (m, 2), int64.
    """
    # in an order of their own, so that what is found does not hang on the order they are given in
    turn = sorted(range(len(images)), key=lambda number: images[number].looks.tobytes())
    image = np.repeat(np.arange(len(turn)), [len(images[number].places) for number in turn])
    if not len(image):
        return np.empty((0, 2), np.int64)
    where = np.concatenate([images[number].places for number in turn])
    left, right = _alike(_shortened([images[number].looks for number in turn]), image)
    if not len(left):
        return np.empty((0, 2), np.int64)
    pair = image[left] * len(turn) + image[right]
    order = np.argsort(pair, kind="stable")
    left, right, pair = left[order], right[order], pair[order]
    ends = np.flatnonzero(np.diff(pair, append=-1)) + 1
    starts = np.append(0, ends[:-1])
    found = []
    for start, end in zip(starts, ends, strict=True):
        if end - start >= ENOUGH:
            numbers = [turn[number] for number in divmod(int(pair[start]), len(turn))]
            if _one_map(where, left[start:end], right[start:end], *(images[number].small for number in numbers)):
                found.append(sorted(numbers))
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def _shortened(looks: Sequence[np.ndarray]) -> np.ndarray:
    """Descriptions along their main directions, shape (n, 32), float32."""
    count = sum(map(len, looks))
    sample = np.concatenate([each[:: max(1, count // _SAMPLE)] for each in looks]).astype(np.float32)
    centre = sample.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov((sample - centre).T) if len(sample) > 1 else np.eye(128))
    kept = directions[:, ::-1][:, :_WIDTH].astype(np.float32)
    return np.concatenate([(each.astype(np.float32) - centre) @ kept for each in looks])


def _alike(looks: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of like descriptions of different images, the earlier image first, each shape (m,)."""
    bits = int(np.ceil(np.log2(len(looks)))) + _BITS_MORE
    rng = np.random.default_rng(1)
    found = [np.empty(0, np.int64)]
    for _ in range(_TABLES):
        falls = (looks @ rng.normal(size=(_WIDTH, bits)).astype(np.float32)) > 0
        code = falls @ (1 << np.arange(bits, dtype=np.int64))
        order = np.argsort(code, kind="stable")
        code = code[order]
        for gap in range(1, _NEIGHBOURS):
            same = np.flatnonzero(code[gap:] == code[:-gap])
            if not len(same):
                break
            one, other = order[same], order[same + gap]
            good = image[one] != image[other]
            one, other = one[good], other[good]
            near = ((looks[one] - looks[other]) ** 2).sum(axis=1) <= _ALIKE**2
            found.append(np.minimum(one, other)[near] * len(looks) + np.maximum(one, other)[near])
    return np.divmod(np.unique(np.concatenate(found)), len(looks))


def _one_map(where: np.ndarray, left: np.ndarray, right: np.ndarray, first: np.ndarray, second: np.ndarray) -> bool:
    """Whether enough like places of two images lie in one another under one affine map, and the same between them."""
    if min(len(np.unique(left)), len(np.unique(right))) < ENOUGH:
        return False
    one, other = where[left], where[right]
    affine, inside = cv2.estimateAffine2D(one, other, ransacReprojThreshold=_STRAY, maxIters=500)
    if affine is None or not np.isfinite(affine).all():
        return False
    stretch = np.linalg.svd(affine[:, :2], compute_uv=False)
    kept = inside.ravel().astype(bool)
    apart = min(len(np.unique(np.round(points[kept] / _CELL), axis=0)) for points in (one, other))
    if apart < ENOUGH or stretch[0] > _STRETCH or stretch[1] < 1 / _STRETCH:
        return False
    if max(_spread(one[kept], first), _spread(other[kept], second)) < _WIDE:
        return False
    return _likeness(first, second, affine, one[kept]) >= _SAME


def _spread(places: np.ndarray, small: np.ndarray) -> float:
    """The share of a picture that lies between places, 0 to 1."""
    return cv2.contourArea(cv2.convexHull(places)) / (small.size * _SMALLER**2)


def _likeness(first: np.ndarray, second: np.ndarray, affine: np.ndarray, places: np.ndarray) -> float:
    """The correlation of two small pictures over the hull of the places that agree, -1 to 1."""
    hull = cv2.convexHull(np.round(places / _SMALLER).astype(np.int32))
    area = cv2.fillConvexPoly(np.zeros(first.shape, np.uint8), hull, 1).astype(bool)
    moved = affine.copy()
    moved[:, 2] /= _SMALLER
    drawn = cv2.warpAffine(second, moved, first.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    values = np.stack([first[area], drawn[area]]).astype(np.float64)
    if values.shape[1] < _LEAST or values.std(axis=1).min() < 1:
        return 0.0
    return float(np.corrcoef(values[0], values[1])[0, 1])
