"""The search for near-duplicate images: by a hash, and by local features for turned, sheared and cut-out copies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from wbctool.device import cores
from wbctool.errors import ImageError
from wbctool.imaging.files import read_image
from wbctool.imaging.local_features import NO_FEATURES, LocalFeatures, find_copies, local_features
from wbctool.imaging.perceptual_hash import families, near_pairs, perceptual_hash

COPIES_UP_TO = 20_000  # images; local features of more would not fit into memory
_BATCH = 64  # images per thread that are read ahead


class _Signature(NamedTuple):
    """Width and height of an image, its hashes, and its local features."""

    size: tuple[int, ...]
    hashes: np.ndarray
    features: LocalFeatures


_UNREADABLE = _Signature((0, 0), np.empty((0, 4), np.uint64), NO_FEATURES)


@dataclass
class Duplicates:
    """Near-duplicates among n images."""

    count: int  # n
    pairs: np.ndarray  # rows (i, j) with i < j, sorted, shape (m, 2)
    sizes: np.ndarray  # width and height of each image, 0 of those that cannot be read, shape (n, 2)
    failed: dict[int, str] = field(default_factory=dict)  # errors of images that cannot be read, by their number
    turned: bool = True  # whether the search was for turned and sheared copies, too

    @property
    def families(self) -> np.ndarray:
        """The number of the family each image is in, shape (n,); images that no pairs link are in different ones."""
        return families(self.pairs, self.count)


def find_duplicates(
    paths: Sequence[str], jobs: int = 0, on_image: Callable[[bool], None] = lambda failed: None
) -> Duplicates:
    """Find images that show the same, resized, recompressed, mirrored, turned, sheared or cut out.

    The search for copies that are sheared, cut out, or turned by other than quarters takes up to 20,000 images. It runs
    in threads, by default one per core; `on_image` is called after each image, with whether it failed.
    """
    turned = len(paths) <= COPIES_UP_TO
    sizes, failed = np.zeros((len(paths), 2), np.int64), {}
    hashes, features = [np.empty((0, 4), np.uint64)], []
    for number, signature in enumerate(_signatures(paths, turned, jobs or cores())):
        if isinstance(signature, str):
            failed[number] = signature
            signature = _UNREADABLE
        sizes[number] = signature.size
        hashes.append(signature.hashes)
        features.append(signature.features)
        on_image(number in failed)
    image_of_hash = np.repeat(np.arange(len(paths)), [len(each) for each in hashes[1:]])
    pairs = [image_of_hash[near_pairs(np.concatenate(hashes))], find_copies(features)]
    linked = np.sort(np.concatenate(pairs), axis=1)
    linked = np.unique(linked[linked[:, 0] != linked[:, 1]], axis=0)
    return Duplicates(len(paths), linked, sizes, failed, turned)


def _signatures(paths: Sequence[str], turned: bool, threads: int) -> Iterator[_Signature | str]:
    """The signature of each image, or why it cannot be read; in order."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), _BATCH * threads):
            yield from pool.map(partial(_signature, turned=turned), paths[start : start + _BATCH * threads])


def _signature(path: str, turned: bool) -> _Signature | str:
    try:
        image = read_image(path)
    except ImageError as error:
        return str(error)
    hashes = perceptual_hash(image)
    if not len(hashes):  # of one colour: only identical images are duplicates
        digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=32).digest()
        hashes = np.frombuffer(digest, np.uint64)[None]
    return _Signature(image.shape[1::-1], hashes, local_features(image) if turned else NO_FEATURES)
