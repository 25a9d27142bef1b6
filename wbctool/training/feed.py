"""The data feed: every image is decoded and scaled once, then read from a memory map."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from wbctool.console import Progress
from wbctool.errors import ImageError, InputError
from wbctool.imaging.inputs import to_input
from wbctool.outputs import read_json, write_json

_CHUNK = 128  # images decoded ahead of the disk


class Pixels:
    """Decoded images in a file of (n, size, size, 3) uint8; memory holds what the system caches.

    Args:
        paths: the images.
        size: side of the network's input, pixels.
        file: where they are kept; one that is there already is used again.
        jobs: threads that decode, 0 for one per core.
        quiet: no progress.

    Attributes:
        failed: index → why, of images that cannot be read; their pixels are black.

    Raises:
        InputError: the disk is too small.
    """

    def __init__(self, paths: Sequence[str], size: int, file: Path, jobs: int = 0, quiet: bool = False) -> None:
        faults = file.with_suffix(".json")
        if not file.exists():
            need = len(paths) * size * size * 3
            file.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(file.parent).free < need + 2**28:
                raise InputError(
                    f"{file.parent}: {need / 2**30:.1f} GiB are needed for the decoded images; "
                    "free some, or lower --size"
                )
            write_json(faults, _decode_all(paths, size, file.with_suffix(".part"), jobs, quiet))
            file.with_suffix(".part").replace(file)
        self.failed = {int(index): reason for index, reason in read_json(faults, "train with --overwrite").items()}
        self._array = np.load(file, mmap_mode="r")

    def batch(self, indices: np.ndarray) -> torch.Tensor:
        """Images by index as (n, 3, size, size) uint8, channels last in memory."""
        order = np.argsort(indices, kind="stable")  # reading forward is kinder to the disk
        rows = np.empty((len(indices), *self._array.shape[1:]), np.uint8)
        rows[order] = self._array[indices[order]]
        return torch.from_numpy(rows).permute(0, 3, 1, 2)


def _decode_all(paths: Sequence[str], size: int, file: Path, jobs: int, quiet: bool) -> dict[str, str]:
    failed: dict[str, str] = {}
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), size, size, 3)}
    threads = ThreadPoolExecutor(jobs or os.cpu_count())  # OpenCV decodes outside the interpreter's lock
    with open(file, "wb") as stream, threads, Progress("train: decode", "images", quiet, len(paths)) as progress:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            for index, image in enumerate(threads.map(_read, chunk, [size] * len(chunk)), start):
                if isinstance(image, str):
                    failed[str(index)] = image
                    image = np.zeros((size, size, 3), np.uint8)
                stream.write(image.tobytes())
                progress.step(str(index) in failed)
    return failed


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
