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
CORRECTED = 2  # copies of a corrected size at most
PROMINENCE = {RED: 0.1, WHITE: 0.4}  # how far the depth falls between two cells at least
# Areas at least, in areas of a red cell:
SMALLEST_RED, SMALLEST_CUT_RED = 0.4, 0.16  # of a red cell, and of one that the edge of the image cuts
SMALLEST_WHITE = 0.12  # of a white cell
# A white cell of less than half a red cell's area needs a nucleus of at least a tenth of it.
SURELY_WHITE, SMALLEST_NUCLEUS = 0.5, 0.1
SMALLEST_PLATELET = 4  # pixels of the maps
# A stained object of up to 1.2 red-cell areas is one cell: white if at least 0.3 of its pixels are, else a platelet.
ONE_OBJECT, PARTLY_WHITE = 1.2, 0.3
WHITE_TO_RED = 1.8  # diameter of a white cell, in those of a red cell, where too few red cells are seen
WIDEST_WHITE = 5  # diameter of a white cell at most, in those of a red cell
FEW = 3  # red cells needed to measure their diameter


def segment(image: np.ndarray, file: str | None = None) -> Objects:
    """Find the cells of an RGB image, uint8, by the network of the package or of a file."""
    maps, labels = _read(image, load(file))
    occupied = np.any(list(labels.values()), axis=0)
    regions = {kind: Borders(maps, kind, labels[kind], occupied, image.shape[:2]).regions() for kind in labels}
    return Objects([(whole, nucleus_of(maps, whole)) for whole in regions[WHITE]], regions[PLATELET], regions[RED])


@dataclass(frozen=True)
class _Reading:
    """What a copy of the image shows: its maps, the most probable kind of each pixel, and red cells."""

    scale: float  # of the copy
    maps: Maps
    likely: np.ndarray
    red: np.ndarray  # label map

    @classmethod
    def of(cls, image: np.ndarray, scale: float, network: cv2.dnn.Net) -> _Reading:
        maps = maps_of(image, scale, network)
        likely = maps.likely
        return cls(scale, maps, likely, split_by_depth(_mask(likely, RED), maps.depth, PROMINENCE[RED]))

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

    @property
    def better_scale(self) -> float:
        """That at which a red cell would have the usual diameter; a larger one where no cell is seen."""
        if not self.diameter:
            return min(1.0, 2.5 * self.scale)
        return min(ENLARGED, self.scale * min(4.0, USUAL / self.diameter))

    def merit(self) -> tuple[bool, float]:
        """By which the best of several is chosen."""
        return self.is_suitable, self.certainty


def _read(image: np.ndarray, network: cv2.dnn.Net) -> tuple[Maps, dict[int, np.ndarray]]:
    """The maps of an image, from a copy of a suitable size, and the label map of each kind of cell."""
    reading = _suitable(image, network)
    unit = np.pi / 4 * (reading.diameter / 2) ** 2
    maps = _of_one_kind(reading.maps, unit)
    white = split_by_depth(_mask(maps.likely, WHITE), maps.depth, PROMINENCE[WHITE])
    white = _with_nuclei(white, maps.probabilities[NUCLEUS], unit)
    platelets = cv2.connectedComponents(_mask(maps.likely, PLATELET))[1]
    return maps, {
        WHITE: without_small(white, SMALLEST_WHITE * unit),
        PLATELET: without_small(platelets, SMALLEST_PLATELET),
        RED: without_small(reading.red, SMALLEST_RED * unit, SMALLEST_CUT_RED * unit),
    }


def _suitable(image: np.ndarray, network: cv2.dnn.Net) -> _Reading:
    """Read copies of an image until its red cells have a suitable size, and choose the one that is read best."""
    side = max(image.shape[:2])
    readings = [_Reading.of(image, min(ENLARGED, max(SIDE, min(side / 2, LONGEST)) / side), network)]
    first = readings[0]
    if first.certainty < SURE and first.diameter >= NARROWEST:  # parts of large cells may have been read as cells
        readings.append(_Reading.of(image, first.scale / 2, network))
    if side > 2 * LONGEST:  # small cells that touch may have been read as one
        readings.append(_Reading.of(image, 2 * first.scale, network))
    for _ in range(CORRECTED):
        best = max(readings, key=_Reading.merit)
        scale = best.better_scale
        if best.is_suitable or any(abs(np.log(scale / other.scale)) < 0.2 for other in readings):
            break
        readings.append(_Reading.of(image, scale, network))
    return max(readings, key=_Reading.merit)


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


def _of_one_kind(maps: Maps, unit: float) -> Maps:
    """Give small objects that are partly white cell, partly platelet one kind; a small lymphocyte is no platelet."""
    likely = maps.likely
    stained = (likely == WHITE) | (likely == PLATELET)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(stained.astype(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA]
    white = np.bincount(pieces[likely == WHITE], minlength=count) / np.maximum(areas, 1)
    mixed = (areas <= ONE_OBJECT * unit) & (white > 0) & (white < 1)
    mixed[0] = False
    is_white = (mixed & (white >= PARTLY_WHITE))[pieces]
    return maps.reassigned(is_white, mixed[pieces] & ~is_white) if mixed.any() else maps


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
