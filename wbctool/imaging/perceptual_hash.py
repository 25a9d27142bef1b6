"""A hash that near-same images share: resized, recompressed, brighter, mirrored or turned by quarters.

The signs of the 255 lowest frequencies of a cosine transform (Zauner 2010, section 3.2.1, with more bits).
Mirroring changes their signs and a quarter turn swaps them, so that one of the eight symmetries can be taken
as the upright one.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import sparse

_SIDE, _LOW = 64, 16
WITHIN = 16  # of 255 bits, in which two hashes of near-same images differ at most
_CLEAR = 0.04  # of the largest frequency; one nearer to zero than that does not tell which side is up
_FLAT = 2.0  # grey levels; a picture of nothing has no hash
_AT_ONCE = 1 << 18  # comparisons


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """The hash of an image, once for each way up that it could have.

    Args:
        image: RGB, shape (height, width, 3), uint8.

    Returns:
        Shape (ways, 4), uint64, one to eight; (0, 4) for a picture of one colour.
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if small.std() < _FLAT:
        return np.empty((0, 4), np.uint64)
    waves = cv2.dct(small.astype(np.float32))[:_LOW, :_LOW]
    waves[0, 0] = 0
    unclear = _CLEAR * np.abs(waves).max()
    odd = np.arange(_LOW) % 2
    ways = []
    for across in _ways(waves[0, 1], unclear):
        for down in _ways(waves[1, 0], unclear):
            upright = waves * np.where(odd, across, 1)[None, :] * np.where(odd, down, 1)[:, None]
            for turn in _ways(abs(waves[0, 1]) - abs(waves[1, 0]), unclear):
                ways.append(np.packbits((upright if turn > 0 else upright.T).ravel() > 0))
    return np.unique(np.array(ways), axis=0).view(np.uint64)


def _ways(value: float, unclear: float) -> tuple[int, ...]:
    return (1, -1) if abs(value) <= unclear else (1,) if value > 0 else (-1,)


def near_pairs(hashes: np.ndarray, within: int = WITHIN) -> np.ndarray:
    """Pairs of hashes that differ in few bits and link all that are near, without comparing each with each.

    Two hashes that differ in k bits agree in at least one of k + 1 pieces, so only those that share a piece are
    compared; those that pairs link already are not compared again.

    Args:
        hashes: shape (n, 4), uint64.
        within: bits.

    Returns:
        Rows (i, j) with i < j, sorted, shape (m, 2), int64. Two near hashes are a pair, or linked by pairs.
    """
    distinct, first, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    bits = np.unpackbits(distinct.view(np.uint8), axis=1)[:, np.random.default_rng(0).permutation(256)]
    found = [_pairs_of_one(which.ravel(), first)]
    for piece in np.array_split(np.arange(256), within + 1):
        code = bits[:, piece] @ (1 << np.arange(len(piece), dtype=np.int64))
        order = np.argsort(code, kind="stable")
        ends = np.flatnonzero(np.diff(code[order], append=-1)) + 1
        lengths = np.diff(ends, prepend=0)
        linked = _families(np.concatenate(found[1:]), len(distinct)) if len(found) > 1 else np.arange(len(distinct))
        new = [
            _near_within(distinct, linked, order, (ends - lengths)[lengths == length], int(length), within)
            for length in np.unique(lengths[lengths > 1])
        ]
        found.append(np.concatenate([np.empty((0, 2), np.int64), *new]))
    found[1:] = [first[pairs] for pairs in found[1:]]
    pairs = np.concatenate(found)
    pairs.sort(axis=1)
    return np.unique(pairs, axis=0)


def _families(pairs: np.ndarray, count: int) -> np.ndarray:
    table = sparse.coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return sparse.csgraph.connected_components(table, directed=False)[1]


def _pairs_of_one(which: np.ndarray, first: np.ndarray) -> np.ndarray:
    later = np.setdiff1d(np.arange(len(which)), first)
    return np.stack([first[which[later]], later], axis=1)


def _near_within(
    hashes: np.ndarray, linked: np.ndarray, order: np.ndarray, starts: np.ndarray, length: int, within: int
) -> np.ndarray:
    """Near pairs among the members of buckets that all have one length."""
    found = [np.empty((0, 2), np.int64)]
    for gap in range(1, length):  # each with the one that many places after it
        places = (starts[:, None] + np.arange(length - gap)).ravel()
        for start in range(0, len(places), _AT_ONCE):
            here = places[start : start + _AT_ONCE]
            left, right = order[here], order[here + gap]
            open_still = linked[left] != linked[right]
            left, right = left[open_still], right[open_still]
            differing = np.bitwise_count(hashes[left] ^ hashes[right]).sum(axis=1, dtype=np.int64)
            near = differing <= within
            found.append(np.stack([left[near], right[near]], axis=1))
    return np.concatenate(found)
