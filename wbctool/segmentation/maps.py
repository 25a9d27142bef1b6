"""The network of the method `unet`, and its maps of an image."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path

import cv2
import numpy as np

from wbctool.errors import InputError

STRIDE = 16  # sides of what the network sees are multiples of it
OUTPUTS = 6
TILE, OVERLAP = 768, 64  # a larger copy is cut into tiles, pixels
RED, WHITE, PLATELET = 1, 2, 3  # kinds of cells in `Maps.kinds`
CYTOPLASM, NUCLEUS = 2, 3  # classes in `Maps.probabilities`

_networks: dict[tuple[int, str | None], cv2.dnn.Net] = {}


@dataclass(frozen=True)
class Maps:
    """What the network gives for an image, at a fraction of its size.

    Attributes:
        probabilities: of background, red cell, cytoplasm, nucleus and platelet, (5, height, width), float32.
        depth: in the cell, 0 to 1, (height, width), float32.
        scale: pixels of the maps per pixel of the image, across and down.
    """

    probabilities: np.ndarray
    depth: np.ndarray
    scale: tuple[float, float]

    @cached_property
    def kinds(self) -> np.ndarray:
        """Probabilities of background, red cell, white cell and platelet, (4, height, width)."""
        p = self.probabilities
        return np.stack([p[0], p[1], p[2] + p[3], p[4]])

    @cached_property
    def likely(self) -> np.ndarray:
        """The most probable kind of each pixel, (height, width), uint8."""
        return self.kinds.argmax(axis=0).astype(np.uint8)

    def reassigned(self, white: np.ndarray, platelet: np.ndarray) -> Maps:
        """Maps in which no pixel of a mask may be a platelet, and none of another a white cell."""
        probabilities = self.probabilities.copy()
        cell = probabilities[CYTOPLASM : NUCLEUS + 1]
        factor = 1 + probabilities[4] / np.maximum(cell.sum(axis=0), 1e-6)
        cell *= np.where(white, factor, 1)
        probabilities[4] += np.where(platelet, cell.sum(axis=0), 0)
        probabilities[4, white] = 0
        cell[:, platelet] = 0
        return replace(self, probabilities=probabilities)

    def margin(self, kind: int) -> np.ndarray:
        """Logarithm of the ratio of a kind's probability to that of the most probable other one."""
        others = np.delete(self.kinds, kind, axis=0).max(axis=0)
        return np.log((self.kinds[kind] + 1e-4) / (others + 1e-4))

    @cached_property
    def nucleus(self) -> np.ndarray:
        """Logarithm of the ratio of the probabilities of nucleus and cytoplasm."""
        return np.log((self.probabilities[NUCLEUS] + 1e-4) / (self.probabilities[CYTOPLASM] + 1e-4))


def maps_of(image: np.ndarray, scale: float, network: cv2.dnn.Net) -> Maps:
    """Run the network on a copy of an image at some scale."""
    height, width = (max(STRIDE, round(side * scale)) for side in image.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    copy = cv2.resize(image, (width, height), interpolation=how)
    down, across = -height % STRIDE, -width % STRIDE
    copy = cv2.copyMakeBorder(copy, 0, down, 0, across, cv2.BORDER_REFLECT_101)
    logits = _logits(copy, network)[:, : (height + 1) // 2, : (width + 1) // 2]
    exponents = np.exp(logits[:5] - logits[:5].max(axis=0))
    depth = 1 / (1 + np.exp(-logits[5]))
    scales = (0.5 * width / image.shape[1], 0.5 * height / image.shape[0])
    return Maps(exponents / exponents.sum(axis=0), depth, scales)


def _logits(copy: np.ndarray, network: cv2.dnn.Net) -> np.ndarray:
    """Logits (6, height / 2, width / 2) of an image; a large one in tiles, so that memory stays flat."""
    height, width = copy.shape[:2]
    if max(height, width) <= TILE:
        return _forward(copy, network)
    logits = np.empty((OUTPUTS, height // 2, width // 2), np.float32)
    step = TILE - 2 * OVERLAP
    for top in range(0, height, step):
        for left in range(0, width, step):
            y, x = max(0, top - OVERLAP), max(0, left - OVERLAP)
            tile = _forward(copy[y : top + step + OVERLAP, x : left + step + OVERLAP], network)
            part = tile[:, (top - y) // 2 :, (left - x) // 2 :][:, : step // 2, : step // 2]
            logits[:, top // 2 : top // 2 + part.shape[1], left // 2 : left // 2 + part.shape[2]] = part
    return logits


def _forward(copy: np.ndarray, network: cv2.dnn.Net) -> np.ndarray:
    network.setInput(cv2.dnn.blobFromImage(np.ascontiguousarray(copy)))
    return network.forward()[0]


def load(file: str | None = None) -> cv2.dnn.Net:
    """Return the network of the package or of an ONNX file; each thread has its own, as two cannot share one.

    Raises:
        InputError: the file cannot be read, or is another network.
    """
    key = (threading.get_ident(), file)
    if key not in _networks:
        if file and not Path(file).is_file():
            raise InputError(f"{file}: no such file; give a network as examples/cell_network/train.py writes it")
        name = file or "the network of the package"
        try:
            with as_file(files("wbctool.segmentation").joinpath("unet.onnx")) as packaged:
                network = cv2.dnn.readNetFromONNX(file or str(packaged))
            network.setInput(np.zeros((1, 3, STRIDE, STRIDE), np.float32))
            shape = network.forward().shape
        except cv2.error as error:
            raise InputError(f"{name}: not an ONNX network that OpenCV runs ({error.err})") from None
        if shape != (1, OUTPUTS, STRIDE // 2, STRIDE // 2):
            raise InputError(
                f"{name}: its output for 16 × 16 pixels has shape {shape}, not (1, 6, 8, 8); give a network of "
                "examples/cell_network"
            )
        _networks[key] = network
    return _networks[key]
