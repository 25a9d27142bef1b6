"""A hash that near-duplicate images share: resized, recompressed, brighter, mirrored or turned by quarters.

The signs of the 255 lowest frequencies of a cosine transform (Zauner 2010, section 3.2.1, with more bits). Mirroring
changes their signs and a quarter turn swaps them, so that one of the eight symmetries can be taken as the upright one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import cv2
import numpy as np
from scipy import sparse

_SIDE, _LOW = 64, 16
WITHIN = 16  # of 255 bits, by which two hashes of near-duplicates differ at most
_CLEAR = 0.04  # of the largest frequency; one nearer to zero does not decide which side is up
_FLAT = 2.0  # grey levels; an image with a smaller standard deviation has no hash


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """Compute the hash of an image once for each way up that it could have: shape (ways, 4), uint64.

    There are one to eight, and none for an image of one colour.
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if small.std() < _FLAT:
        return np.empty((0, 4), np.uint64)
    waves = cv2.dct(small.astype(np.float32))[:_LOW, :_LOW]
    waves[0, 0] = 0
    unclear = _CLEAR * np.abs(waves).max()
    odd = np.arange(_LOW) % 2
    hashes = []
    for across in _signs(waves[0, 1], unclear):
        for down in _signs(waves[1, 0], unclear):
            upright = waves * np.where(odd, across, 1)[None, :] * np.where(odd, down, 1)[:, None]
            for turn in _signs(abs(waves[0, 1]) - abs(waves[1, 0]), unclear):
                hashes.append(np.packbits((upright if turn > 0 else upright.T).ravel() > 0))
    return np.unique(np.array(hashes), axis=0).view(np.uint64)


def _signs(value: float, unclear: float) -> tuple[int, ...]:
    return (1, -1) if abs(value) <= unclear else (1,) if value > 0 else (-1,)


def near_pairs(hashes: np.ndarray, within: int = WITHIN) -> np.ndarray:
    """Find pairs of hashes that differ in few bits and link all that are near, without comparing each with each.

    Two hashes that differ in k bits agree in at least one of k + 1 pieces, so only those that share a piece are
    compared, and only those that are not linked by pairs already. Hashes are (n, 4), uint64; pairs rows (i, j) with
    i < j, sorted.
    """
    if not len(hashes):
        return np.empty((0, 2), np.int64)
    distinct, first, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    bits = np.unpackbits(distinct.view(np.uint8), axis=1)[:, np.random.default_rng(0).permutation(256)]
    pairs = np.empty((0, 2), np.int64)
    for piece in np.array_split(np.arange(256), within + 1):
        code = bits[:, piece] @ (1 << np.arange(len(piece), dtype=np.int64))
        family = families(pairs, len(distinct))
        near = [pairs]
        for left, right in pairs_of_equal(code):
            unlinked = family[left] != family[right]
            left, right = left[unlinked], right[unlinked]
            differing = np.bitwise_count(distinct[left] ^ distinct[right]).sum(axis=1, dtype=np.int64)
            near.append(np.stack([left, right], axis=1)[differing <= within])
        pairs = np.concatenate(near)
    repeated = np.setdiff1d(np.arange(len(hashes)), first)
    same = np.stack([first[which.ravel()[repeated]], repeated], axis=1)
    return np.unique(np.sort(np.concatenate([same, first[pairs]]), axis=1), axis=0)


def families(pairs: np.ndarray, count: int) -> np.ndarray:
    """Number the families of `count` items that pairs (m, 2) link, directly or through others; shape (count,)."""
    table = sparse.coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return sparse.csgraph.connected_components(table, directed=False)[1]


def pairs_of_equal(codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of items that have equal codes: those next to each other when sorted, then those two apart, …"""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.arange(len(codes))
    for gap in count(1):
        starts = starts[starts < len(codes) - gap]
        starts = starts[ordered[starts] == ordered[starts + gap]]
        if not len(starts):
            return
        yield order[starts], order[starts + gap]
