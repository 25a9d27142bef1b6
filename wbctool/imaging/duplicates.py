"""The search for near-same images: by a hash at any scale, and by local features for turned and sheared copies."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import sparse

from wbctool.device import cores
from wbctool.errors import ImageError
from wbctool.imaging.files import read_image
from wbctool.imaging.local_features import NOTHING, Seen, copies, describe
from wbctool.imaging.perceptual_hash import near_pairs, perceptual_hash

COPIES_UP_TO = 20_000  # images; of more, local features would not be held in memory


class _Looked(NamedTuple):
    size: tuple[int, ...]
    hashes: np.ndarray
    places: Seen


_UNREAD = _Looked((0, 0), np.empty((0, 4), np.uint64), NOTHING)


@dataclass
class Duplicates:
    """What the search found among n images.

    Attributes:
        count: n.
        pairs: rows (i, j) with i < j, sorted, shape (m, 2).
        sizes: width and height of each image, 0 of those that cannot be read, shape (n, 2).
        failed: of images that cannot be read, why.
        turned: whether turned and sheared copies were looked for, too.
    """

    count: int
    pairs: np.ndarray
    sizes: np.ndarray
    failed: dict[int, str] = field(default_factory=dict)
    turned: bool = True

    @property
    def families(self) -> np.ndarray:
        """The number of the family each image is in, shape (n,); images that no pairs link are in different ones."""
        ones = np.ones(len(self.pairs), bool)
        table = sparse.coo_matrix((ones, (self.pairs[:, 0], self.pairs[:, 1])), shape=(self.count, self.count))
        return sparse.csgraph.connected_components(table, directed=False)[1]


def find_duplicates(
    paths: Sequence[str], jobs: int = 0, on_image: Callable[[bool], None] = lambda failed: None
) -> Duplicates:
    """Find images that show the same, resized, recompressed, mirrored, turned, sheared or cut out.

    Turned by other than quarters, sheared and cut-out copies are looked for among up to 20,000 images.

    Args:
        paths: of n images.
        jobs: threads, 0 for one per core.
        on_image: called after each image, with whether it failed.
    """
    turned = len(paths) <= COPIES_UP_TO
    found = Duplicates(len(paths), np.empty((0, 2), np.int64), np.zeros((len(paths), 2), np.int64), turned=turned)
    hashes: list[np.ndarray] = []
    owners: list[int] = []
    views: list[Seen] = []
    for number, seen in enumerate(_seen(paths, turned, jobs)):
        if isinstance(seen, str):
            found.failed[number] = seen
            seen = _UNREAD
        found.sizes[number] = seen.size
        hashes.append(seen.hashes)
        owners += [number] * len(seen.hashes)
        if turned:
            views.append(seen.places)
        on_image(number in found.failed)
    pairs = [np.empty((0, 2), np.int64)]
    if owners:
        pairs.append(np.array(owners)[near_pairs(np.concatenate(hashes))])
    if turned:
        pairs.append(copies(views))
    together = np.sort(np.concatenate(pairs), axis=1)
    found.pairs = np.unique(together[together[:, 0] != together[:, 1]], axis=0)
    return found


def _seen(paths: Sequence[str], turned: bool, jobs: int) -> Iterator[_Looked | str]:
    """Of each image its size, hashes and places, or why it cannot be read; in order, few of them ahead."""
    jobs = jobs or cores()
    waiting: deque[Future[_Looked | str]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for path in paths:
            waiting.append(pool.submit(_one, path, turned))
            if len(waiting) > 4 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _one(path: str, turned: bool) -> _Looked | str:
    try:
        image = read_image(path)
    except ImageError as error:
        return str(error)
    hashes = perceptual_hash(image)
    if not len(hashes):  # of one colour: only the very same are the same
        digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=32).digest()
        hashes = np.frombuffer(digest, np.uint64)[None]
    return _Looked(image.shape[1::-1], hashes, describe(image) if turned else NOTHING)
