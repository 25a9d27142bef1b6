"""The data feed: images are decoded once into a memory map, batches are fetched ahead of their use."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from wbctool.console import Progress
from wbctool.device import cores
from wbctool.errors import ImageError
from wbctool.imaging.inputs import to_input
from wbctool.records.storage import read_json, write_json

_CHUNK = 128  # images decoded ahead of the disk
_SPARE = 2**28  # bytes of the disk that are left alone
_AHEAD = 3  # batches fetched ahead

Item = TypeVar("Item")


class Pixels:
    """Decoded images in a file of (n, size, size, 3) uint8; memory holds what the system caches.

    What goes beyond the limit, or the disk, is decoded anew whenever it is fetched.

    Args:
        paths: the images.
        size: side of the network's input, pixels.
        file: where they are kept; one that is there already is used again.
        jobs: threads that decode, 0 for one per core.
        quiet: no progress.
        limit: bytes that may be kept; None for what the disk holds.

    Attributes:
        failed: index → why, of images that cannot be read; their pixels are black.
    """

    def __init__(
        self,
        paths: Sequence[str],
        size: int,
        file: Path,
        jobs: int = 0,
        quiet: bool = False,
        limit: int | None = None,
    ) -> None:
        self._paths, self._size = list(paths), size
        self._threads = ThreadPoolExecutor(jobs or cores())  # OpenCV decodes outside the interpreter's lock
        faults = file.with_suffix(".json")
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            room = shutil.disk_usage(file.parent).free - _SPARE
            room = max(0, room if limit is None else min(room, limit))
            kept = min(len(paths), room // (size * size * 3))
            write_json(faults, self._decode_all(file.with_suffix(".part"), kept, quiet))
            file.with_suffix(".part").replace(file)
        self.failed = {int(index): reason for index, reason in read_json(faults, "train with --overwrite").items()}
        self._array = np.load(file, mmap_mode="r")

    @property
    def kept(self) -> int:
        """How many images, from the first, are not decoded again."""
        return len(self._array)

    def batch(self, indices: np.ndarray) -> torch.Tensor:
        """Images by index as (n, 3, size, size) uint8, channels last in memory."""
        order = np.argsort(indices, kind="stable")  # reading forward is kinder to the disk
        rows = np.empty((len(indices), self._size, self._size, 3), np.uint8)
        held = order[indices[order] < self.kept]
        rows[held] = self._array[indices[held]]
        others = order[len(held) :]
        for place, image in zip(others, self._threads.map(self._read, indices[others]), strict=True):
            rows[place] = 0 if isinstance(image, str) else image
        return torch.from_numpy(rows).permute(0, 3, 1, 2)

    def _read(self, index: int) -> np.ndarray | str:
        try:
            return to_input(self._paths[index], self._size)
        except ImageError as error:
            return str(error)

    def _decode_all(self, file: Path, kept: int, quiet: bool) -> dict[str, str]:
        """Decode every image once, as a damaged one must be known before training; keep the first ones."""
        failed: dict[str, str] = {}
        header = {"descr": "|u1", "fortran_order": False, "shape": (kept, self._size, self._size, 3)}
        count = len(self._paths)
        with open(file, "wb") as stream, Progress("train: decode", "images", quiet, count) as progress:
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, count, _CHUNK):
                chunk = range(start, min(start + _CHUNK, count))
                for index, image in zip(chunk, self._threads.map(self._read, chunk), strict=True):
                    if isinstance(image, str):
                        failed[str(index)] = image
                        image = np.zeros((self._size, self._size, 3), np.uint8)
                    if index < kept:
                        stream.write(image.tobytes())
                    progress.step(str(index) in failed)
        return failed


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items, some of them made ahead by a thread; what it raises is raised here."""
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put(item, None)
                if stopped.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def epoch_order(targets: np.ndarray, sampling: str, seed: int, epoch: int) -> np.ndarray:
    """Indices of the samples of an epoch, in random order.

    Args:
        targets: class of each sample, shape (n,).
        sampling: `shuffled`, each sample once; `balanced`, each class equally often, within a class none
            twice more than another.
        seed: of all chance.
        epoch: from 1.

    Returns:
        Shape (n,), int.
    """
    random = np.random.default_rng((seed, epoch))
    if sampling == "shuffled":
        return random.permutation(len(targets))
    classes = np.unique(targets)
    shares = np.full(len(classes), len(targets) // len(classes))
    shares[random.permutation(len(classes))[: len(targets) % len(classes)]] += 1
    drawn = []
    for number, share in zip(classes, shares, strict=True):
        own = np.flatnonzero(targets == number)
        drawn.append(np.concatenate([random.permutation(own) for _ in range(-(-share // len(own)))])[:share])
    return random.permutation(np.concatenate(drawn))


def batches_of(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut an order into batches; a last one of under a quarter of the others joins the one before.

    Batch statistics of a single image would be undefined, those of a few are poor.
    """
    cuts = list(range(0, len(order), batch_size))
    if len(cuts) > 1 and len(order) - cuts[-1] < max(2, batch_size // 4):
        cuts.pop()
    return [order[start:end] for start, end in zip(cuts, [*cuts[1:], len(order)], strict=True)]
