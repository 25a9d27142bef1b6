"""Decoded images, kept in a memory map so that each is decoded once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from wbctool.console import Progress
from wbctool.device import cores
from wbctool.errors import ImageError
from wbctool.imaging.inputs import to_input
from wbctool.records.storage import read_json, write_json

_CHUNK = 128  # images decoded ahead of the disk
_SPARE = 2**28  # bytes of the disk that stay free


class ImageStore:
    """Decoded images in a file of (n, size, size, 3) uint8, which is used again; memory holds what the system caches.

    Images beyond `limit` bytes, or the free disk, are decoded whenever they are read. `jobs` threads decode, 0 for one
    per core. `failed` has the error of each image that cannot be read, by index; its pixels are black.
    """

    def __init__(
        self, paths: Sequence[str], size: int, file: Path, jobs: int = 0, quiet: bool = False, limit: int | None = None
    ) -> None:
        self._paths, self._size = list(paths), size
        self._threads = ThreadPoolExecutor(jobs or cores())  # OpenCV decodes outside the interpreter's lock
        errors = file.with_suffix(".json")
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(file.parent).free - _SPARE
            free = max(0, free if limit is None else min(free, limit))
            kept = min(len(paths), free // (size * size * 3))
            write_json(errors, self._decode_all(file.with_suffix(".part"), kept, quiet))
            file.with_suffix(".part").replace(file)
        self.failed = {int(index): error for index, error in read_json(errors, "train with --overwrite").items()}
        self._array = np.load(file, mmap_mode="r")

    @property
    def kept(self) -> int:
        """How many images, the first ones, are kept decoded."""
        return len(self._array)

    def batch(self, indices: np.ndarray) -> torch.Tensor:
        """Return images by index as (n, 3, size, size) uint8, channels last in memory."""
        order = np.argsort(indices, kind="stable")  # reading forward is kinder to the disk
        images = np.empty((len(indices), self._size, self._size, 3), np.uint8)
        kept = order[indices[order] < self.kept]
        images[kept] = self._array[indices[kept]]
        others = order[len(kept) :]
        for index, image in zip(others, self._threads.map(self._read, indices[others]), strict=True):
            images[index] = 0 if isinstance(image, str) else image
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def _read(self, index: int) -> np.ndarray | str:
        try:
            return to_input(self._paths[index], self._size)
        except ImageError as error:
            return str(error)

    def _decode_all(self, file: Path, kept: int, quiet: bool) -> dict[str, str]:
        """Decode every image once, as damaged ones must be known before training, and keep the first ones."""
        errors: dict[str, str] = {}
        header = {"descr": "|u1", "fortran_order": False, "shape": (kept, self._size, self._size, 3)}
        count = len(self._paths)
        with open(file, "wb") as stream, Progress("train: decode", "images", quiet, count) as progress:
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, count, _CHUNK):
                chunk = range(start, min(start + _CHUNK, count))
                for index, image in zip(chunk, self._threads.map(self._read, chunk), strict=True):
                    if isinstance(image, str):
                        errors[str(index)] = image
                        image = np.zeros((self._size, self._size, 3), np.uint8)
                    if index < kept:
                        stream.write(image.tobytes())
                    progress.step(str(index) in errors)
        return errors
