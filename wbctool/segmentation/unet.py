"""White cells with nuclei, red cells and platelets by a small U-Net.

1. The network (`unet.onnx`, described in `unet.md`) sees a copy of the image in which a red cell is about 40 pixels
   wide; where the first copy turns out to be far from that, a second one is made.
2. For each pixel at half the size of the copy it gives the probability of five classes, and the depth in the cell: 0 at
   the border, 1 in the middle.
3. Touching cells of one kind are split by a watershed on the depth (`Instances`).
4. Borders are drawn at full size where the probabilities, interpolated, are equal.

OpenCV runs the network. `tests/benchmarks/masks.py` prints the agreement with experts, and
`examples/cell_network/train.py` trains it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path

import cv2
import numpy as np

from wbctool.errors import InputError
from wbctool.imaging.label_image import Objects, Region
from wbctool.segmentation.regions import fill_holes

SIDE = 224  # longer side of the first copy, pixels
ENLARGED = 1.5  # factor by which a small image is enlarged at most
USUAL, NARROWEST, WIDEST = 40.0, 22.0, 90.0  # diameter of a red cell in a copy, pixels
STRIDE = 16  # sides of a copy are multiples of it
TILE, OVERLAP = 768, 64  # larger copies are cut into tiles, pixels
CORE = 0.5  # depth from which a pixel belongs to the core of a cell
SMALLEST_CORE = 0.02  # area of a core, in areas of a red cell
SMALLEST_WHITE = 0.12  # area of a white cell at least, in areas of a red cell
SMALLEST_RED = 0.12
SMALLEST_PLATELET = 4  # pixels of the maps
FRAGMENT = 0.05  # a piece smaller than this fraction of the largest is no lobe
WHITE_TO_RED = 1.8  # diameter of a white cell, in those of a red cell, where no red cell is visible

OUTPUTS = 6

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

    def margin(self, kind: int) -> np.ndarray:
        """Log-odds of a kind of `kinds` against the most probable other one."""
        others = np.delete(self.kinds, kind, axis=0).max(axis=0)
        return np.log((self.kinds[kind] + 1e-4) / (others + 1e-4))

    @cached_property
    def nucleus(self) -> np.ndarray:
        """Log-odds of nucleus against cytoplasm."""
        return np.log((self.probabilities[3] + 1e-4) / (self.probabilities[2] + 1e-4))


RED, WHITE, PLATELET = 1, 2, 3


def segment(image: np.ndarray, file: str | None = None) -> Objects:
    """Find the cells of an RGB image, uint8, by the network of the package or of a file."""
    maps, cells = read(image, load(file))
    shape = image.shape[:2]
    white, platelets, red = (Borders(maps, kind, cells[kind], shape).regions() for kind in (WHITE, PLATELET, RED))
    return Objects([(whole, _nucleus(maps, whole)) for whole in white], platelets, red)


def read(image: np.ndarray, network: cv2.dnn.Net) -> tuple[Maps, dict[int, np.ndarray]]:
    """The maps of an image, from a copy of a suitable size, and the label map of each kind of cell."""
    scale = min(ENLARGED, SIDE / max(image.shape[:2]))
    tried: list[float] = []
    while True:
        maps = maps_of(image, scale, network)
        diameter, cells = measured(maps)
        tried.append(scale)
        if NARROWEST <= diameter <= WIDEST or len(tried) == 3:
            return maps, cells
        better = min(ENLARGED, scale * min(4.0, USUAL / diameter)) if diameter else min(1.0, 2.5 * scale)
        if any(abs(np.log(better / other)) < 0.2 for other in tried):
            return maps, cells
        scale = better


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
    logits = np.empty((6, height // 2, width // 2), np.float32)
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
        try:
            with as_file(files("wbctool.segmentation").joinpath("unet.onnx")) as own:
                network = cv2.dnn.readNetFromONNX(file or str(own))
            network.setInput(np.zeros((1, 3, STRIDE, STRIDE), np.float32))
            shape = network.forward().shape
        except cv2.error as error:
            raise InputError(f"{file}: not an ONNX network that OpenCV runs ({error.err})") from None
        if shape != (1, OUTPUTS, STRIDE // 2, STRIDE // 2):
            raise InputError(f"{file}: gives {shape} for 16 × 16 pixels; give a network of examples/cell_network")
        _networks[key] = network
    return _networks[key]


def measured(maps: Maps) -> tuple[float, dict[int, np.ndarray]]:
    """The diameter of a red cell in the network's copy, 0 where there are no cells, and the label map of each kind."""
    kind = maps.kinds.argmax(axis=0)
    red = instances((kind == RED).astype(np.uint8), maps.depth, 12)
    areas = _areas(red)
    if len(areas) >= 3:
        diameter = 2 * np.sqrt(np.median(areas[areas >= 0.3 * np.median(areas)]) / np.pi)
    else:
        whites = _areas(instances((kind == WHITE).astype(np.uint8), maps.depth, 12))
        diameter = 2 * np.sqrt(np.max(whites) / np.pi) / WHITE_TO_RED if len(whites) else 0.0
    unit = np.pi / 4 * max(diameter, 4.0) ** 2
    cells = {
        WHITE: instances((kind == WHITE).astype(np.uint8), maps.depth, SMALLEST_WHITE * unit),
        RED: instances((kind == RED).astype(np.uint8), maps.depth, SMALLEST_RED * unit),
        PLATELET: cv2.connectedComponents((kind == PLATELET).astype(np.uint8))[1],
    }
    return 2 * float(diameter), cells


def _areas(labels: np.ndarray) -> np.ndarray:
    """Areas of labels that do not touch the edge; of all where none is inside."""
    areas = np.bincount(labels.ravel())
    inner = areas.copy()
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        inner[edge] = 0
    inner, areas = inner[1:][inner[1:] > 0], areas[1:][areas[1:] > 0]
    return inner if len(inner) else areas


def instances(mask: np.ndarray, depth: np.ndarray, smallest: float) -> np.ndarray:
    """Split a mask by a watershed on the depth; label map, int32, with 0 outside and of what is too small."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    inside = keep[parts]
    cores = (inside & (depth > CORE)).astype(np.uint8)
    core_count, core_labels, core_stats, _ = cv2.connectedComponentsWithStats(cores, connectivity=4)
    small = core_stats[:, cv2.CC_STAT_AREA] < max(2.0, 0.15 * smallest)
    core_labels[small[core_labels]] = 0
    with_core = np.zeros(count, bool)
    with_core[parts[core_labels > 0]] = True
    alone = inside & ~with_core[parts]  # without a core a piece is one cell
    markers = np.where(alone, parts + core_count, core_labels)
    hills = cv2.merge([np.where(inside, 250 - 250 * depth, 255).astype(np.uint8)] * 3)
    labels = _without_ridges(cv2.watershed(hills, markers.astype(np.int32)))
    labels[~inside] = 0
    numbers = np.zeros(count + core_count, np.int32)
    used = np.unique(labels[labels > 0])
    numbers[used] = np.arange(1, len(used) + 1)
    return numbers[labels]


def _without_ridges(labels: np.ndarray) -> np.ndarray:
    """Give the lines, one or two pixels wide, that a watershed leaves to a neighbour."""
    for _ in range(2):
        grown = cv2.dilate(np.maximum(labels, 0).astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
        labels = np.where(labels < 0, np.where(grown > 0, grown, labels), labels)
    return np.maximum(labels, 0)


class Borders:
    """Outlines at full size of the cells of one kind."""

    def __init__(self, maps: Maps, kind: int, labels: np.ndarray, shape: tuple[int, int]) -> None:
        self._maps, self._labels, self._shape = maps, labels, shape
        self._margin, self._chance = maps.margin(kind), maps.kinds[kind]
        self._windows = _windows(labels)

    def regions(self) -> list[Region]:
        """All cells, holes filled."""
        found = (self._region(number, *window) for number, window in enumerate(self._windows, start=1))
        return [region for region in found if region is not None]

    def _region(self, number: int, left: int, top: int, right: int, bottom: int) -> Region | None:
        """The cell of a label, from its window in the maps; None where nothing is left of it."""
        rows, columns = slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2)
        labels, margin = self._labels[rows, columns], self._margin[rows, columns]
        own, other = labels == number, (labels > 0) & (labels != number)
        near = (cv2.dilate(own.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~other
        margin = np.where(near, margin, np.where(other, -np.abs(margin) - 0.5, np.minimum(margin, -1.0)))
        across, down = self._maps.scale
        x, y = max(0, int((left - 1.5) / across)), max(0, int((top - 1.5) / down))
        shape = (
            min(self._shape[0], int((bottom + 1.5) / down) + 1) - y,
            min(self._shape[1], int((right + 1.5) / across) + 1) - x,
        )
        odds = enlarged(self._maps, margin.astype(np.float32), (x, y), shape, (columns.start, rows.start))
        mask = fill_holes(_largest((odds > 0).astype(np.uint8)))
        if not mask.any():
            return None
        quality = expected_dice(own, np.where(other, 0, self._chance[rows, columns]))
        tight = Region.from_mask(mask)
        return Region(x + tight.x, y + tight.y, tight.mask, quality=quality)


def _windows(labels: np.ndarray) -> list[list[int]]:
    """Left, top, right and bottom of each label, the last two not included."""
    rows, columns = np.nonzero(labels)
    values = labels[rows, columns] - 1
    low = np.full((2, int(labels.max())), labels.size)
    high = np.zeros_like(low)
    for index, positions in enumerate((columns, rows)):
        np.minimum.at(low[index], values, positions)
        np.maximum.at(high[index], values, positions + 1)
    return np.concatenate([low, high]).T.tolist()


def enlarged(
    maps: Maps, values: np.ndarray, start: tuple[int, int], shape: tuple[int, ...], origin: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Interpolate a map at the pixels of a window of the image.

    Args:
        maps: gives the scale.
        values: the map, or a part of it, float32.
        start: column and row of the window's first pixel.
        shape: its height and width.
        origin: column and row of the part's first pixel in the map.
    """
    across, down = maps.scale
    x, y = (start[0] + 0.5) * across - 0.5 - origin[0], (start[1] + 0.5) * down - 0.5 - origin[1]
    matrix = np.array([[across, 0, x], [0, down, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(values, matrix, (shape[1], shape[0]), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count <= 2:
        return mask
    return (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)


def _nucleus(maps: Maps, whole: Region) -> Region:
    """The nucleus of a cell, of one or more lobes; all of the cell where no nucleus is seen."""
    odds = enlarged(maps, maps.nucleus, (whole.x, whole.y), whole.mask.shape)
    mask = _lobes(((odds > 0) & (whole.mask > 0)).astype(np.uint8))
    if not mask.any():
        return replace(whole, quality=0.0)
    chance = 1 / (1 + np.exp(-odds[whole.mask > 0]))
    return Region(whole.x, whole.y, mask, quality=expected_dice(mask[whole.mask > 0], chance))


def _lobes(mask: np.ndarray) -> np.ndarray:
    """The pieces of a nucleus, holes filled, without fragments."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(fill_holes(mask), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0
    return (areas >= max(1, FRAGMENT * areas.max()))[labels].astype(np.uint8) if count > 1 else mask


def expected_dice(mask: np.ndarray, chance: np.ndarray) -> float:
    """The expected Dice coefficient of a mask, where each pixel belongs to the object with its probability."""
    total = float(mask.sum() + chance.sum())
    return float(2 * chance[mask > 0].sum() / total) if total else 0.0
