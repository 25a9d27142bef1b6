"""White cells with nuclei, red cells and platelets by a small U-Net.

1. The network (`unet.onnx`, described in `unet.md`) sees a copy of the image in which a red cell is about 40 pixels
   wide. Where the first copy turns out to be far from that, or the network is less sure than usual, others are tried;
   it is surest where cells have the size that it knows.
2. For each pixel at half the size of the copy it gives the probability of five classes, and the depth in the cell: 0 at
   the border, 1 in the middle (`maps.py`).
3. Touching cells of one kind are split by a watershed on the depth (`depth.py`).
4. Borders are drawn at full size where the probabilities, interpolated, are equal (`borders.py`).

OpenCV runs the network. `tests/benchmarks/masks.py` prints the agreement with experts, and
`examples/cell_network/train.py` trains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from wbctool.imaging.label_image import Objects
from wbctool.segmentation.borders import Borders, nucleus_of
from wbctool.segmentation.depth import split_by_depth, touches_edge, without_small
from wbctool.segmentation.maps import NUCLEUS, PLATELET, RED, WHITE, Maps, load, maps_of

SIDE, LONGEST = 224, 640  # longer side of the first copy, pixels: half of the image's, within these bounds
ENLARGED = 1.5  # factor by which a small image is enlarged at most
USUAL, NARROWEST, WIDEST = 40.0, 26.0, 80.0  # diameter of a red cell in a copy, pixels
SURE = 0.95  # certainty of the first copy below which a smaller one is compared
COPIES = 3  # tried at most
PROMINENCE = {RED: 0.1, WHITE: 0.4}  # how far the depth falls between two cells at least
# Areas at least, in areas of a red cell:
SMALLEST_RED, SMALLEST_CUT_RED = 0.4, 0.16  # of a red cell, and of one that the edge of the image cuts
SMALLEST_WHITE = 0.12  # of a white cell
SURELY_WHITE, SMALLEST_NUCLEUS = 0.5, 0.1  # of a white cell from which it may show no nucleus, and of a nucleus
SMALLEST_PLATELET = 4  # pixels of the maps
ONE_OBJECT, PARTLY_WHITE = 1.2, 0.3  # a stained object of at most so many red cells is white from this fraction on
WHITE_TO_RED = 1.8  # diameter of a white cell, in those of a red cell, where too few red cells are seen
WIDEST_WHITE = 5  # diameter of a white cell at most, in those of a red cell
FEW = 3


def segment(image: np.ndarray, file: str | None = None) -> Objects:
    """Find the cells of an RGB image, uint8, by the network of the package or of a file."""
    maps, labels = _read(image, load(file))
    of = {kind: Borders(maps, kind, labels[kind], image.shape[:2]).regions() for kind in (WHITE, PLATELET, RED)}
    return Objects([(whole, nucleus_of(maps, whole)) for whole in of[WHITE]], of[PLATELET], of[RED])


@dataclass(frozen=True)
class _Reading:
    """What a copy of the image shows: its maps, the most probable kind of each pixel, and red cells."""

    maps: Maps
    likely: np.ndarray
    red: np.ndarray  # label map

    @classmethod
    def of(cls, image: np.ndarray, scale: float, network: cv2.dnn.Net) -> _Reading:
        maps = maps_of(image, scale, network)
        likely = maps.kinds.argmax(axis=0).astype(np.uint8)
        return cls(maps, likely, split_by_depth(_mask(likely, RED), maps.depth, PROMINENCE[RED]))

    @cached_property
    def diameter(self) -> float:
        """Of a red cell, pixels of the copy; 0 without cells."""
        return 2 * _red_diameter(self.red, self.likely)  # the maps have half of its pixels

    @cached_property
    def certainty(self) -> float:
        """Mean probability of the most probable kind where that is a cell; 0 without cells."""
        cells = self.likely > 0
        return float(self.maps.kinds.max(axis=0)[cells].mean()) if cells.any() else 0.0

    @property
    def is_suitable(self) -> bool:
        """Whether red cells have a size that the network knows."""
        return NARROWEST <= self.diameter <= WIDEST


def _read(image: np.ndarray, network: cv2.dnn.Net) -> tuple[Maps, Mapping[int, np.ndarray]]:
    """The maps of an image, from a copy of a suitable size, and the label map of each kind of cell."""
    reading = _suitable(image, network)
    maps, unit = reading.maps, np.pi / 4 * (reading.diameter / 2) ** 2
    likely = _of_one_kind(reading.likely, unit)
    white = split_by_depth(_mask(likely, WHITE), maps.depth, PROMINENCE[WHITE])
    white = _with_nuclei(white, maps.probabilities[NUCLEUS], unit)
    platelets = cv2.connectedComponents(_mask(likely, PLATELET))[1]
    return maps, {
        RED: without_small(reading.red, SMALLEST_RED * unit, SMALLEST_CUT_RED * unit),
        WHITE: without_small(white, SMALLEST_WHITE * unit, SMALLEST_WHITE * unit),
        PLATELET: without_small(platelets, SMALLEST_PLATELET, SMALLEST_PLATELET),
    }


def _suitable(image: np.ndarray, network: cv2.dnn.Net) -> _Reading:
    """Read copies of an image until its red cells have a suitable size, and choose the one that is read best."""
    side = max(image.shape[:2])
    scale = min(ENLARGED, max(SIDE, min(side / 2, LONGEST)) / side)
    reading = _Reading.of(image, scale, network)
    others = []
    if reading.certainty < SURE and reading.diameter >= NARROWEST:
        others.append(scale / 2)  # parts of large cells may have been read as cells
    if side > 2 * LONGEST:
        others.append(2 * scale)  # small cells that touch may have been read as one
    readings = [reading, *(_Reading.of(image, other, network) for other in others)]
    reading = max(readings, key=lambda reading: (reading.is_suitable, reading.certainty))
    tried = [scale, *others]
    while not reading.is_suitable and len(tried) < COPIES:
        factor = min(4.0, USUAL / reading.diameter) if reading.diameter else 2.5
        scale = min(ENLARGED if reading.diameter else 1.0, scale * factor)
        if any(abs(np.log(scale / other)) < 0.2 for other in tried):
            break
        tried.append(scale)
        reading = _Reading.of(image, scale, network)
    return reading


def _mask(likely: np.ndarray, kind: int) -> np.ndarray:
    """Where a kind is the most probable one; of red cells without lines, such as an image's dark edge gives."""
    mask = (likely == kind).astype(np.uint8)
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) if kind == RED else mask


def _with_nuclei(white: np.ndarray, nucleus: np.ndarray, unit: float) -> np.ndarray:
    """Drop what is small and shows no nucleus from the label map of white cells: parts of red cells, and dirt."""
    areas = np.bincount(white.ravel())
    nuclei = np.bincount(white[nucleus > 0.5], minlength=len(areas))
    keep = (areas >= SURELY_WHITE * unit) | (nuclei >= SMALLEST_NUCLEUS * unit)
    return np.where(keep[white], white, 0)


def _of_one_kind(likely: np.ndarray, unit: float) -> np.ndarray:
    """Give small objects that are partly white cell, partly platelet one kind; a small lymphocyte is no platelet."""
    stained = (likely == WHITE) | (likely == PLATELET)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(stained.astype(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA]
    white = np.bincount(pieces[likely == WHITE], minlength=count) / np.maximum(areas, 1)
    kinds = np.where(white >= PARTLY_WHITE, WHITE, PLATELET)
    mixed = (areas <= ONE_OBJECT * unit) & (white > 0) & (white < 1)
    mixed[0] = False
    return np.where(mixed[pieces], kinds[pieces], likely)


def _red_diameter(red: np.ndarray, likely: np.ndarray) -> float:
    """The diameter of a red cell, pixels of the maps, or a guess by the largest white cell; 0 without cells."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(_mask(likely, WHITE), connectivity=4)
    white = 2 * np.sqrt(stats[1:, cv2.CC_STAT_AREA].max(initial=0) / np.pi)
    areas = _areas(red)
    if len(areas) >= FEW:
        measured = 2 * np.sqrt(np.median(areas[areas >= 0.3 * np.median(areas)]) / np.pi)
        if measured * WIDEST_WHITE >= white:  # else these are slivers beside a cell that fills the image
            return float(measured)
    return float(white / WHITE_TO_RED)


def _areas(labels: np.ndarray) -> np.ndarray:
    """Areas of the cells that do not touch the edge; of all where each does."""
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    inner = np.where(touches_edge(labels), 0, areas)
    return inner[inner > 0] if inner.any() else areas[areas > 0]
