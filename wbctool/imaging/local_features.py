"""Finding turned, sheared, mirrored or cut-out copies of an image among many, by the places that look alike.

Places and what they look like are SIFT's (Lowe 2004) in RootSIFT's scale (Arandjelović and Zisserman 2012), a
place and its mirror image described alike. Descriptions that fall together under random projections are
compared; two images are copies where many places of one lie in the other under one affine map.
"""

from __future__ import annotations

from collections.abc import Sequence

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
_CELL = 8  # pixels; places nearer to one another count once
_SAMPLE = 20_000  # descriptions of which the main directions are taken


def describe(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The clearest places of an image.

    Args:
        image: RGB, shape (height, width, 3), uint8.

    Returns:
        Where they are, x and y in pixels of the image at 320 pixels, shape (k, 2), float32; and what they look
        like, shape (k, 128), float32, of unit length.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = SIDE / max(grey.shape)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in grey.shape[::-1]]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    points, looks = cv2.SIFT_create(PLACES, contrastThreshold=0.02).detectAndCompute(grey, None)
    if looks is None:
        return np.empty((0, 2), np.float32), np.empty((0, 128), np.float32)
    return np.array([point.pt for point in points[:PLACES]], np.float32), _mirrorless(looks[:PLACES])


def _mirrorless(looks: np.ndarray) -> np.ndarray:
    # A mirrored place has rows of cells in reverse and angles negated. Of the two, the one is taken that has more
    # of a fixed random direction.
    roots = np.sqrt(looks / np.maximum(looks.sum(axis=1, keepdims=True), 1e-9)).reshape(-1, 4, 4, 8)
    mirrored = roots[:, ::-1][..., -np.arange(8) % 8].reshape(-1, 128)
    roots = roots.reshape(-1, 128)
    side = np.random.default_rng(5).normal(size=128).astype(np.float32)
    return np.where((roots @ side >= mirrored @ side)[:, None], roots, mirrored)


def copies(places: Sequence[np.ndarray], looks: Sequence[np.ndarray]) -> np.ndarray:
    """Pairs of images that show the same, without comparing each with each.

    Args:
        places: of each image, as `describe` gives them.
        looks: likewise.

    Returns:
        Rows (i, j) with i < j, sorted, shape (m, 2), int64.
    """
    image = np.repeat(np.arange(len(places)), [len(each) for each in places])
    if not len(image):
        return np.empty((0, 2), np.int64)
    where = np.concatenate(places)
    left, right = _alike(_shortened(looks), image)
    pair = image[left] * len(places) + image[right]
    order = np.argsort(pair, kind="stable")
    left, right, pair = left[order], right[order], pair[order]
    ends = np.flatnonzero(np.diff(pair, append=-1)) + 1
    starts = np.append(0, ends[:-1])
    found = []
    for start, end in zip(starts, ends, strict=True):
        if end - start >= ENOUGH and _one_map(where, left[start:end], right[start:end]):
            found.append(divmod(int(pair[start]), len(places)))
    return np.array(found, np.int64).reshape(-1, 2)


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


def _one_map(where: np.ndarray, left: np.ndarray, right: np.ndarray) -> bool:
    """Whether enough of the like places of two images lie in one another under one affine map."""
    if min(len(np.unique(left)), len(np.unique(right))) < ENOUGH:
        return False
    one, other = where[left], where[right]
    affine, inside = cv2.estimateAffine2D(one, other, ransacReprojThreshold=_STRAY, maxIters=500)
    if affine is None or not np.isfinite(affine).all():
        return False
    stretch = np.linalg.svd(affine[:, :2], compute_uv=False)
    kept = inside.ravel().astype(bool)
    apart = min(len(np.unique(np.round(points[kept] / _CELL), axis=0)) for points in (one, other))
    return bool(apart >= ENOUGH and stretch[0] <= _STRETCH and stretch[1] >= 1 / _STRETCH)
