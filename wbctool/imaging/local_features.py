"""Finding turned, sheared, mirrored or cut-out copies of an image among many, by their local features.

Keypoints and descriptors are SIFT's (Lowe 2004) in RootSIFT's scale (Arandjelović and Zisserman 2012), the same for a
keypoint and its mirror image. Descriptors that get the same code by random projections are compared; two images are
copies where many keypoints of one match the other's under one affine map.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np

from wbctool.imaging.perceptual_hash import pairs_of_equal

KEYPOINTS = 128  # of an image, at most
SIDE = 320  # pixels to which larger images are scaled
ENOUGH = 10  # matches that agree; images that are not copies have fewer than 5
_WIDTH = 32  # numbers of a descriptor that are kept
_NEAR = 0.3  # distance of two matching descriptors of unit length
_TABLES, _MORE_BITS = 6, 3  # random codes, and how many bits each has beyond those that number all descriptors
_NEIGHBOURS = 64  # descriptors compared within one bucket
_STRAY = 4.0  # pixels between a keypoint and where an affine map puts it
_STRETCH = 2.0  # factor by which the map may stretch or shrink
_SMALLER = 4  # factor by which thumbnails are smaller
_MIN_PIXELS, _MIN_CORRELATION = 30, 0.7  # of thumbnails between the matches
_MIN_HULL = 0.12  # fraction of one of the images that lies between the matches: red cells look like each other
_CELL = 8  # pixels; keypoints nearer to each other count once
_SAMPLE = 20_000  # descriptors from which the main directions are computed


class LocalFeatures(NamedTuple):
    """Local features of an image."""

    keypoints: np.ndarray  # the clearest ones, x and y in pixels of the image at 320 pixels, shape (k, 2), float32
    descriptors: np.ndarray  # of unit length, shape (k, 128), float16
    thumbnail: np.ndarray  # the image in grey, at a quarter of those pixels, uint8


NO_FEATURES = LocalFeatures(np.empty((0, 2), np.float32), np.empty((0, 128), np.float16), np.zeros((1, 1), np.uint8))


def local_features(image: np.ndarray) -> LocalFeatures:
    """Compute the local features of an image, RGB, shape (height, width, 3), uint8."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = SIDE / max(grey.shape)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in grey.shape[::-1]]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    points, descriptors = cv2.SIFT.create(KEYPOINTS, contrastThreshold=0.02).detectAndCompute(grey, None)
    if descriptors is None:
        return NO_FEATURES
    thumbnail = cv2.resize(grey, None, fx=1 / _SMALLER, fy=1 / _SMALLER, interpolation=cv2.INTER_AREA)
    keypoints = np.array([point.pt for point in points[:KEYPOINTS]], np.float32)
    return LocalFeatures(keypoints, _mirror_invariant(descriptors[:KEYPOINTS]).astype(np.float16), thumbnail)


def _mirror_invariant(descriptors: np.ndarray) -> np.ndarray:
    # The descriptor of a mirrored keypoint has its rows of cells in reverse and its angles negated. Of the two, the one
    # is kept that has more of a fixed random direction.
    roots = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)).reshape(-1, 4, 4, 8)
    mirrored = roots[:, ::-1][..., -np.arange(8) % 8].reshape(-1, 128)
    roots = roots.reshape(-1, 128)
    direction = np.random.default_rng(5).normal(size=128).astype(np.float32)
    return np.where((roots @ direction >= mirrored @ direction)[:, None], roots, mirrored)


def find_copies(images: Sequence[LocalFeatures]) -> np.ndarray:
    """Find pairs of images that show the same, without comparing each with each: rows (i, j) with i < j, sorted."""
    # sorted by content, so that the result does not depend on the order of the images
    order = sorted(range(len(images)), key=lambda number: images[number].descriptors.tobytes())
    image_of = np.repeat(np.arange(len(order)), [len(images[number].keypoints) for number in order])
    if not len(image_of):
        return np.empty((0, 2), np.int64)
    keypoints = np.concatenate([images[number].keypoints for number in order])
    left, right = _matches(_shortened([images[number].descriptors for number in order]), image_of)
    pair = image_of[left] * len(order) + image_of[right]
    by_pair = np.argsort(pair, kind="stable")
    copies = []
    for matches in np.split(by_pair, np.flatnonzero(np.diff(pair[by_pair])) + 1):
        if len(matches) >= ENOUGH:
            first, second = (order[number] for number in divmod(int(pair[matches[0]]), len(order)))
            thumbnails = images[first].thumbnail, images[second].thumbnail
            if _under_one_map(keypoints, left[matches], right[matches], *thumbnails):
                copies.append(sorted((first, second)))
    return np.array(sorted(copies), np.int64).reshape(-1, 2)


def _shortened(descriptors: Sequence[np.ndarray]) -> np.ndarray:
    """Descriptors along their main directions, shape (n, 32), float32."""
    count = sum(map(len, descriptors))
    sample = np.concatenate([each[:: max(1, count // _SAMPLE)] for each in descriptors]).astype(np.float32)
    centre = sample.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov((sample - centre).T) if len(sample) > 1 else np.eye(128))
    kept = directions[:, ::-1][:, :_WIDTH].astype(np.float32)
    return np.concatenate([(each.astype(np.float32) - centre) @ kept for each in descriptors])


def _matches(descriptors: np.ndarray, image_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of near descriptors of different images, the earlier image first, each shape (m,)."""
    bits = int(np.ceil(np.log2(len(descriptors)))) + _MORE_BITS
    rng = np.random.default_rng(1)
    near = [np.empty(0, np.int64)]
    for _ in range(_TABLES):
        positive = (descriptors @ rng.normal(size=(_WIDTH, bits)).astype(np.float32)) > 0
        code = positive @ (1 << np.arange(bits, dtype=np.int64))
        for one, other in islice(pairs_of_equal(code), _NEIGHBOURS - 1):
            different = image_of[one] != image_of[other]
            one, other = one[different], other[different]
            matching = ((descriptors[one] - descriptors[other]) ** 2).sum(axis=1) <= _NEAR**2
            near.append((np.minimum(one, other) * len(descriptors) + np.maximum(one, other))[matching])
    return np.divmod(np.unique(np.concatenate(near)), len(descriptors))


def _under_one_map(
    keypoints: np.ndarray, left: np.ndarray, right: np.ndarray, first: np.ndarray, second: np.ndarray
) -> bool:
    """Whether enough matches of two images lie under one affine map, and the thumbnails agree between them."""
    if min(len(np.unique(left)), len(np.unique(right))) < ENOUGH:
        return False
    one, other = keypoints[left], keypoints[right]
    affine, inside = cv2.estimateAffine2D(one, other, ransacReprojThreshold=_STRAY, maxIters=500)
    if affine is None or not np.isfinite(affine).all():
        return False
    stretch = np.linalg.svd(affine[:, :2], compute_uv=False)
    kept = inside.ravel().astype(bool)
    separate = min(len(np.unique(np.round(points[kept] / _CELL), axis=0)) for points in (one, other))
    if separate < ENOUGH or stretch[0] > _STRETCH or stretch[1] < 1 / _STRETCH:
        return False
    if max(_hull_fraction(one[kept], first), _hull_fraction(other[kept], second)) < _MIN_HULL:
        return False
    return _correlation(first, second, affine, one[kept]) >= _MIN_CORRELATION


def _hull_fraction(keypoints: np.ndarray, thumbnail: np.ndarray) -> float:
    """The fraction of an image that lies between keypoints, 0 to 1."""
    return cv2.contourArea(cv2.convexHull(keypoints)) / (thumbnail.size * _SMALLER**2)


def _correlation(first: np.ndarray, second: np.ndarray, affine: np.ndarray, keypoints: np.ndarray) -> float:
    """The correlation of two thumbnails over the hull of the keypoints that agree, -1 to 1."""
    hull = cv2.convexHull(np.round(keypoints / _SMALLER).astype(np.int32))
    area = cv2.fillConvexPoly(np.zeros(first.shape, np.uint8), hull, 1).astype(bool)
    moved = affine.copy()
    moved[:, 2] /= _SMALLER
    warped = cv2.warpAffine(second, moved, first.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    values = np.stack([first[area], warped[area]]).astype(np.float64)
    if values.shape[1] < _MIN_PIXELS or values.std(axis=1).min() < 1:
        return 0.0
    return float(np.corrcoef(values[0], values[1])[0, 1])
