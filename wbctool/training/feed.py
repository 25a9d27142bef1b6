"""The data feed: every image is decoded and scaled once, then read from a memory map."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from wbctool.console import Progress
from wbctool.errors import ImageError, InputError
from wbctool.imaging.inputs import to_input


class Pixels:
    """Decoded images in a file of (n, size, size, 3) uint8; memory holds what the system caches.

    Args:
        paths: the images.
        size: side of the network's input, pixels.
        folder: where the file is kept; one that is there already from these images is used again.
        jobs: processes that decode, 0 for all cores.
        quiet: no progress.

    Raises:
        ImageError: an image cannot be read.
        InputError: the disk is too small.
    """

    def __init__(self, paths: Sequence[str], size: int, folder: Path, jobs: int = 0, quiet: bool = False) -> None:
        key = hashlib.blake2b("\0".join([str(size), *paths]).encode(), digest_size=8).hexdigest()
        file = folder / f"pixels-{key}.npy"
        if not file.exists():
            need = len(paths) * size * size * 3
            folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < need + 2**28:
                raise InputError(
                    f"{folder}: {need / 2**30:.1f} GiB are needed for the decoded images; free some, or lower --size"
                )
            _decode_all(paths, size, file, jobs, quiet)
        self._array = np.load(file, mmap_mode="r")

    def batch(self, indices: np.ndarray) -> torch.Tensor:
        """Images by index as (n, 3, size, size) uint8, channels last in memory."""
        order = np.argsort(indices, kind="stable")  # reading forward is kinder to the disk
        rows = np.empty((len(indices), *self._array.shape[1:]), np.uint8)
        rows[order] = self._array[indices[order]]
        return torch.from_numpy(rows).permute(0, 3, 1, 2)


def _decode_all(paths: Sequence[str], size: int, file: Path, jobs: int, quiet: bool) -> None:
    from joblib import Parallel, delayed

    partial = file.with_suffix(".part")
    array = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(paths), size, size, 3))
    jobs = 1 if len(paths) < 200 else (jobs or -1)
    with Progress("train: decode", "images", quiet, total=len(paths)) as progress:
        made = Parallel(n_jobs=jobs, return_as="generator")(delayed(_read)(path, size) for path in paths)
        for index, image in enumerate(made):
            if isinstance(image, str):
                raise ImageError(image)
            array[index] = image
            progress.step()
    array.flush()
    del array
    partial.replace(file)


def _read(path: str, size: int) -> np.ndarray | str:
    try:
        return to_input(path, size)
    except ImageError as error:
        return str(error)


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Indices of an epoch in random order, by batches; a last batch of one joins the one before.

    Batch statistics of a single image would be undefined.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    cuts = list(range(0, count, batch_size))
    if len(cuts) > 1 and count - cuts[-1] == 1:
        cuts.pop()
    for start, end in zip(cuts, [*cuts[1:], count], strict=True):
        yield order[start:end]
