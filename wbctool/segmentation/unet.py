"""White cells with nuclei, red cells and platelets by a small U-Net.

1. The network (`unet.onnx`, described in `unet.md`) sees a copy of the image in which a red cell is about 40 pixels
   wide; where the first copy turns out to be far from that, a second one is made.
2. For each pixel at half the size of the copy it gives the probability of five classes, and the depth in the cell: 0 at
   the border, 1 in the middle (`maps.py`).
3. Touching cells of one kind are split by a watershed on the depth (`depth.py`).
4. Borders are drawn at full size where the probabilities, interpolated, are equal (`borders.py`).

OpenCV runs the network. `tests/benchmarks/masks.py` prints the agreement with experts, and
`examples/cell_network/train.py` trains it.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from wbctool.imaging.label_image import Objects
from wbctool.segmentation.borders import Borders, nucleus_of
from wbctool.segmentation.depth import split_by_depth, without_small
from wbctool.segmentation.maps import PLATELET, RED, WHITE, Maps, load, maps_of

SIDE = 224  # longer side of the first copy, pixels
ENLARGED = 1.5  # factor by which a small image is enlarged at most
USUAL, NARROWEST, WIDEST = 40.0, 22.0, 90.0  # diameter of a red cell in a copy, pixels
COPIES = 3  # tried at most
PROMINENCE = {RED: 0.1, WHITE: 0.4}  # how far the depth falls between two cells at least
SMALLEST = {RED: 0.2, WHITE: 0.12}  # area of a cell at least, in areas of a red cell
SMALLEST_PLATELET = 4  # pixels of the maps
WHITE_TO_RED = 1.8  # diameter of a white cell, in those of a red cell, where too few red cells are seen
FEW = 3


def segment(image: np.ndarray, file: str | None = None) -> Objects:
    """Find the cells of an RGB image, uint8, by the network of the package or of a file."""
    maps, labels = _read(image, load(file))
    of = {kind: Borders(maps, kind, labels[kind], image.shape[:2]).regions() for kind in (WHITE, PLATELET, RED)}
    return Objects([(whole, nucleus_of(maps, whole)) for whole in of[WHITE]], of[PLATELET], of[RED])


def _read(image: np.ndarray, network: cv2.dnn.Net) -> tuple[Maps, Mapping[int, np.ndarray]]:
    """The maps of an image, from a copy of a suitable size, and the label map of each kind of cell."""
    scale, tried = min(ENLARGED, SIDE / max(image.shape[:2])), []
    while True:
        maps = maps_of(image, scale, network)
        labels = _labelled(maps)
        diameter = _red_diameter(labels)
        tried.append(scale)
        if NARROWEST <= 2 * diameter <= WIDEST or len(tried) == COPIES:
            break
        scale = min(ENLARGED, scale * min(4.0, USUAL / (2 * diameter))) if diameter else min(1.0, 2.5 * scale)
        if any(abs(np.log(scale / other)) < 0.2 for other in tried):
            break
    unit = np.pi / 4 * diameter**2
    sizes = {PLATELET: SMALLEST_PLATELET, **{kind: fraction * unit for kind, fraction in SMALLEST.items()}}
    return maps, {kind: without_small(labels[kind], size) for kind, size in sizes.items()}


def _labelled(maps: Maps) -> dict[int, np.ndarray]:
    """The label map of each kind of cell."""
    likely = maps.kinds.argmax(axis=0)
    masks = {kind: (likely == kind).astype(np.uint8) for kind in (RED, WHITE, PLATELET)}
    masks[RED] = cv2.morphologyEx(masks[RED], cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))  # lines along an edge
    labels = {kind: split_by_depth(masks[kind], maps.depth, fall) for kind, fall in PROMINENCE.items()}
    return {**labels, PLATELET: cv2.connectedComponents(masks[PLATELET])[1]}


def _red_diameter(labels: Mapping[int, np.ndarray]) -> float:
    """The diameter of a red cell, pixels of the maps, or a guess by the largest white cell; 0 without cells."""
    reds, whites = _areas(labels[RED]), _areas(labels[WHITE])
    if len(reds) >= FEW:
        return float(2 * np.sqrt(np.median(reds[reds >= 0.3 * np.median(reds)]) / np.pi))
    return float(2 * np.sqrt(whites.max() / np.pi) / WHITE_TO_RED) if len(whites) else 0.0


def _areas(labels: np.ndarray) -> np.ndarray:
    """Areas of the cells that do not touch the edge; of all where each does."""
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    inner = areas.copy()
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        inner[edge] = 0
    return inner[inner > 0] if inner.any() else areas[areas > 0]
