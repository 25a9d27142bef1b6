"""Training labels of the cell network, from expert masks, boxes and classes.

Not every pixel of these data sets has one known class: a box says where a white cell is and not which of its pixels are
nucleus. So a label is the set of classes that a pixel may have, one bit each, and the loss asks for any of them.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from wbctool.imaging.colour import background_colour, optical_density
from wbctool.imaging.files import read_image
from wbctool.imaging.label_image import Objects, Region
from wbctool.segmentation.thresholds import otsu_level

CLASSES = ("background", "red cell", "cytoplasm", "nucleus", "platelet")
BACKGROUND, RED_CELL, CYTOPLASM, NUCLEUS, PLATELET = (np.uint8(1 << number) for number in range(5))
WHITE_CELL, ANY = CYTOPLASM | NUCLEUS, np.uint8(31)
NO_WHITE_CELL = BACKGROUND | RED_CELL | PLATELET
UNKNOWN_DEPTH = 255
RED_CELL_DIAMETER = 48  # images are stored with red cells of this diameter at most, pixels
ABSORBING = 0.12  # absorbance from which a pixel is not background
# classes of PBC whose nucleus is one compact piece
COMPACT = {"LY", "ERB", "MO", "MY", "MMY", "PMY"}


@dataclass(frozen=True)
class Sample:
    """An image with its labels, all (height, width).

    Attributes:
        name: file name.
        laboratory: whose image it is.
        image: RGB, uint8.
        allowed: the classes that each pixel may have, bits of `CLASSES`, uint8.
        depth: 200 × (distance to the border of its cell, over the largest in that cell), uint8; 255 where unknown.
        cells: windows of white cells that may be pasted elsewhere: x, y, width, height.
        diameter: of a red cell, pixels.
    """

    name: str
    laboratory: str
    image: np.ndarray
    allowed: np.ndarray
    depth: np.ndarray
    cells: list[tuple[int, int, int, int]]
    diameter: float

    @property
    def likely(self) -> np.ndarray:
        """The most probable class of each pixel, for recolouring; white cells are parted by Otsu's threshold."""
        density = optical_density(self.image, background_colour(self.image))
        total = density.sum(axis=2)
        single = [BACKGROUND, RED_CELL, CYTOPLASM, NUCLEUS, PLATELET]
        classes = np.where(np.abs(density).max(axis=2) > ABSORBING, 1, 0).astype(np.uint8)
        for number, bit in enumerate(single):
            classes[self.allowed == bit] = number
        white = self.allowed == WHITE_CELL
        if white.any():
            levels = np.clip(total * 60, 0, 255).astype(np.uint8)
            level, _ = otsu_level(np.bincount(levels[white], minlength=256))
            classes[white] = np.where(levels[white] > level, 3, 2)
        return classes


def write_samples(samples: Sequence[Sample], file: Path) -> None:
    """Write samples as NumPy arrays and JSON."""
    arrays = {f"{i}.{name}": getattr(s, name) for i, s in enumerate(samples) for name in ("image", "allowed", "depth")}
    rest = [[s.name, s.laboratory, s.cells, s.diameter] for s in samples]
    with file.open("wb") as stream:
        np.savez(stream, samples=np.array(json.dumps(rest)), **arrays)


def read_samples(file: Path) -> list[Sample]:
    """Read what `write_samples` wrote."""
    with np.load(file) as arrays:
        return [
            Sample(name, laboratory, *(arrays[f"{i}.{key}"] for key in ("image", "allowed", "depth")), cells, diameter)
            for i, (name, laboratory, cells, diameter) in enumerate(json.loads(str(arrays["samples"])))
        ]


class Labels:
    """Labels of an image while they are collected; what is drawn later goes over what was drawn before."""

    def __init__(self, image: np.ndarray) -> None:
        shape = image.shape[:2]
        self.image = image
        density = optical_density(cv2.GaussianBlur(image, (0, 0), 1.0), background_colour(image))
        self.absorbing = np.abs(density).max(axis=2) > ABSORBING
        self.allowed = np.where(self.absorbing, NO_WHITE_CELL, BACKGROUND)
        self.depth = np.where(self.absorbing, UNKNOWN_DEPTH, 0).astype(np.uint8)
        self.drawn = np.zeros(shape, bool)
        self.cells: list[tuple[int, int, int, int]] = []

    def draw(self, mask: np.ndarray, allowed: np.uint8, depth: bool = True) -> None:
        """Give the pixels of a mask of the whole image a label, and the depth in it."""
        inside = mask > 0
        if not inside.any():
            return
        self.allowed[inside] = allowed
        self.drawn |= inside
        self.depth[inside] = depth_of(mask)[inside] if depth else UNKNOWN_DEPTH

    def draw_white(self, whole: np.ndarray, nucleus: np.ndarray | None) -> None:
        """Draw a white cell; without a nucleus its pixels may be either."""
        self.draw(whole, CYTOPLASM if nucleus is not None else WHITE_CELL)
        if nucleus is not None:
            self.allowed[(nucleus > 0) & (whole > 0)] = NUCLEUS
        self.cells.append(tuple(cv2.boundingRect(whole.astype(np.uint8))))  # type: ignore[arg-type]

    def leave_open(self, mask: np.ndarray) -> None:
        """Allow any class in a mask."""
        self.allowed[mask > 0] = ANY
        self.depth[mask > 0] = UNKNOWN_DEPTH
        self.drawn |= mask > 0

    def sample(self, name: str, laboratory: str, diameter: float) -> Sample:
        """The finished labels, reduced to red cells of `RED_CELL_DIAMETER`."""
        scale = min(1.0, RED_CELL_DIAMETER / diameter)
        if scale == 1:
            return Sample(name, laboratory, self.image, self.allowed, self.depth, self.cells, diameter)
        size = (round(self.image.shape[1] * scale), round(self.image.shape[0] * scale))
        return Sample(
            name,
            laboratory,
            cv2.resize(self.image, size, interpolation=cv2.INTER_AREA),
            cv2.resize(self.allowed, size, interpolation=cv2.INTER_NEAREST),
            cv2.resize(self.depth, size, interpolation=cv2.INTER_NEAREST),
            [tuple(round(side * scale) for side in cell) for cell in self.cells],  # type: ignore[misc]
            diameter * scale,
        )


def depth_of(mask: np.ndarray) -> np.ndarray:
    """200 × the distance to the border over its largest, in a mask; uint8."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return (200 * distance / max(float(distance.max()), 1.0)).astype(np.uint8)


def ellipse(shape: Sequence[int], box: Sequence[float]) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Distance from the centre of a box (left, top, right, bottom), 1 on its inscribed ellipse, in a window about it.

    A side that lies on the edge of the image cuts the cell: there the ellipse is not closed.
    """
    left, top, right, bottom = box
    height, width = shape[:2]
    if left <= 1 and right < width - 1:
        left = min(left, right - max(right - left, bottom - top))
    if right >= width - 1 and left > 1:
        right = max(right, left + max(right - left, bottom - top))
    if top <= 1 and bottom < height - 1:
        top = min(top, bottom - max(right - left, bottom - top))
    if bottom >= height - 1 and top > 1:
        bottom = max(bottom, top + max(right - left, bottom - top))
    grow = 0.15
    x0, x1 = (max(0, int(left - grow * (right - left))), min(width, int(right + grow * (right - left)) + 1))
    y0, y1 = (max(0, int(top - grow * (bottom - top))), min(height, int(bottom + grow * (bottom - top)) + 1))
    y, x = np.mgrid[y0:y1, x0:x1]
    across = (x + 0.5 - (left + right) / 2) / max((right - left) / 2, 1)
    down = (y + 0.5 - (top + bottom) / 2) / max((bottom - top) / 2, 1)
    return np.hypot(across, down), (slice(y0, y1), slice(x0, x1))


def from_boxes(
    image: np.ndarray, boxes: Sequence[tuple[str, tuple[float, ...]]], white: Sequence[np.ndarray] = ()
) -> Labels:
    """Labels of an image whose cells have boxes of kind `wbc`, `rbc` or `platelet`.

    Args:
        image: RGB.
        boxes: kind, and left, top, right, bottom.
        white: masks of white cells by another method; one that fills a white cell's box is taken for its outline.
    """
    labels = Labels(image)
    red = [ellipse(image.shape, box) for kind, box in boxes if kind == "rbc"]
    for radius, window in red:
        allowed, depth = labels.allowed[window], labels.depth[window]
        ring = (radius < 1.12) & ~labels.drawn[window]
        allowed[ring] = RED_CELL | BACKGROUND
        allowed[(radius < 0.85)] = RED_CELL
        inside = radius < 1
        known = np.where(depth[inside] == UNKNOWN_DEPTH, 0, depth[inside])
        depth[inside] = np.maximum(known, 200 * (1 - radius[inside])).astype(np.uint8)
        labels.drawn[window] |= radius < 1.12
    for kind, box in boxes:
        if kind == "platelet":
            radius, window = ellipse(image.shape, box)
            labels.allowed[window][radius < 1.2] = PLATELET | BACKGROUND | RED_CELL
            labels.allowed[window][radius < 0.75] = PLATELET
            labels.depth[window][radius < 1.2] = UNKNOWN_DEPTH
    for kind, box in boxes:
        if kind == "wbc":
            _draw_white_box(labels, box, white)
    return labels


def _draw_white_box(labels: Labels, box: tuple[float, ...], white: Sequence[np.ndarray]) -> None:
    shape = labels.allowed.shape
    radius, window = ellipse(shape, box)
    for mask in white:
        x, y, width, height = cv2.boundingRect(mask)
        if overlap(box, (x, y, x + width, y + height)) > 0.8:
            labels.leave_open(cv2.dilate(mask, np.ones((5, 5), np.uint8)))
            labels.draw_white(mask, None)
            return
    labels.allowed[window][radius < 1.15] = ANY
    labels.allowed[window][radius < 0.8] = WHITE_CELL
    inside = radius < 1
    labels.depth[window][radius < 1.15] = UNKNOWN_DEPTH
    labels.depth[window][inside] = (200 * (1 - radius[inside])).astype(np.uint8)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of boxes given as left, top, right, bottom."""
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def draw_others(labels: Labels, objects: Objects, centre: np.ndarray | None = None) -> None:
    """Draw red cells as a method found them, and leave open what it took for white cells or platelets.

    Objects that overlap `centre`, a mask of what is known, are left out.
    """
    shape = labels.allowed.shape
    for region in objects.red_cells:
        mask = region.to_mask(shape)
        if centre is None or not (mask & centre).any():
            labels.draw(mask, RED_CELL, depth=not region.overlapped)
    for region in [*objects.platelets, *(whole for whole, _ in objects.cells)]:
        mask = region.to_mask(shape)
        if centre is None or (mask & centre).sum() < 0.2 * mask.sum():
            labels.leave_open(cv2.dilate(mask, np.ones((3, 3), np.uint8)))


def solidity(mask: np.ndarray) -> float:
    """Area of a mask, holes filled, over that of its convex hull; 0 where it has several pieces."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return 0.0
    areas = sorted((cv2.contourArea(contour) for contour in contours), reverse=True)
    if sum(areas[1:]) > 0.05 * areas[0]:
        return 0.0
    largest = max(contours, key=cv2.contourArea)
    return areas[0] / max(cv2.contourArea(cv2.convexHull(largest)), 1.0)


def of_pbc(path: Path, objects: Objects, untrusted: bool = False) -> Labels:
    """Labels of a PBC image, whose name says what is in its centre, from the objects of another method.

    With `untrusted` its nuclei are left open.
    """
    image = read_image(path)
    labels, shape = Labels(image), image.shape[:2]
    kind = _class_of(path.name)
    middle = np.array(shape[::-1]) / 2
    pairs: list[tuple[Region, Region | None]] = [*objects.cells, *((region, None) for region in objects.platelets)]
    pairs.sort(key=lambda pair: float(np.hypot(*(_centre(pair[0]) - middle))))
    if kind == "PLATELET":  # the one in the middle is a platelet, whatever it was taken for
        central = [pair for pair in pairs[:1] if _reaches(pair[0], middle)]
    else:
        central = [pair for pair in sorted(pairs[:3], key=lambda pair: -pair[0].area) if _reaches(pair[0], middle)][:1]
    known = np.zeros(shape, np.uint8)
    for whole, _ in central:
        known |= whole.to_mask(shape)
    draw_others(labels, objects, known)
    for whole, nucleus in central:
        mask = whole.to_mask(shape)
        if kind == "PLATELET":
            labels.draw(mask, PLATELET)
            continue
        inner = nucleus.to_mask(shape) if nucleus and not untrusted else None
        trusted = inner is not None and (
            solidity(inner) > 0.85 if kind in COMPACT else kind in {"SNE", "BNE", "NEUTROPHIL"}
        )
        labels.draw_white(mask, inner if trusted else None)
    if not central:
        y, x = np.mgrid[: shape[0], : shape[1]]
        labels.leave_open(np.hypot(x - middle[0], y - middle[1]) < 0.3 * max(shape))
    return labels


def _centre(region: Region) -> np.ndarray:
    moments = cv2.moments(region.mask, binaryImage=True)
    return np.array([region.x + moments["m10"] / moments["m00"], region.y + moments["m01"] / moments["m00"]])


def _reaches(region: Region, point: np.ndarray) -> bool:
    """Whether a point lies in the window of a region."""
    height, width = region.mask.shape
    return region.x <= point[0] <= region.x + width and region.y <= point[1] <= region.y + height


def of_masks(image: np.ndarray, whole: np.ndarray, nucleus: np.ndarray | None, objects: Objects) -> Labels:
    """Labels of an image with an expert's mask of its white cells, or of the central one."""
    labels = Labels(image)
    draw_others(labels, objects, whole)
    count, cells = cv2.connectedComponents(whole, connectivity=4)
    for number in range(1, count):
        labels.draw_white((cells == number).astype(np.uint8), nucleus)
    return labels


def voc_boxes(file: Path) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Kind and corners of the boxes of a Pascal VOC file."""
    import xml.etree.ElementTree as ET

    kinds = {"WBC": "wbc", "RBC": "rbc", "Platelets": "platelet"}
    for entry in ET.parse(file).getroot().iter("object"):
        corners = [float(entry.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")]
        yield kinds[str(entry.findtext("name"))], tuple(corners)


def yolo_boxes(file: Path, width: int, height: int) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Kind and corners of the boxes of a YOLO file with the classes of TXL-PBC."""
    for line in file.read_text().split("\n"):
        if line.strip():
            number, x, y, w, h = map(float, line.split())
            corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            yield ("wbc", "rbc", "platelet")[int(number)], corners


def tile_boxes(file: Path, side: int) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """Kind and corners of the boxes of each tile, by file name; the file has them in fractions of the side."""
    boxes: dict[str, list[tuple[str, tuple[float, ...]]]] = {}
    with file.open() as stream:
        for row in csv.DictReader(stream):
            corners = tuple(side * float(row[edge]) for edge in ("xmin", "ymin", "xmax", "ymax"))
            boxes.setdefault(row["image"], []).append((row["label"], corners))
    return boxes


def refined(sample: Sample, white: np.ndarray, nucleus: np.ndarray) -> Sample:
    """A sample whose open white cells are parted into nucleus and cytoplasm by an earlier network.

    Args:
        sample: with pixels that may be either.
        white: probability of a white cell, (height, width).
        nucleus: log-odds of nucleus against cytoplasm, (height, width).
    """
    allowed = sample.allowed.copy()
    white_cells = (allowed == WHITE_CELL).astype(np.uint8)
    is_compact = sample.laboratory == "pbc" and _class_of(sample.name) in COMPACT
    count, parts = cv2.connectedComponents(white_cells, connectivity=4)
    for number in range(1, count):
        cell = parts == number
        inner = (nucleus > 0) & cell
        if is_compact:
            inner = _compacted(inner.astype(np.uint8)) & cell
        if not inner.any() or inner.sum() < 0.1 * cell.sum():
            continue
        sure = (np.abs(nucleus) > 0.7) | (is_compact & (inner == (nucleus > 0)))
        allowed[cell & inner & sure] = NUCLEUS
        allowed[cell & ~inner & sure] = CYTOPLASM
    # outlines of boxed cells, which have an ellipse only
    unknown = (allowed == ANY) & (np.abs(white - 0.5) > 0.45)
    near = cv2.dilate(white_cells, np.ones((9, 9), np.uint8)) > 0
    allowed[unknown & near & (white > 0.5)] = WHITE_CELL
    allowed[unknown & near & (white < 0.5)] = NO_WHITE_CELL
    return replace(sample, allowed=allowed)


def _class_of(name: str) -> str:
    return re.match(r"[A-Z]+", name).group()  # type: ignore[union-attr]


def _compacted(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a mask, closed and filled, bool."""
    radius = max(1, round(0.12 * float(np.sqrt(mask.sum() / np.pi))))
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, element)
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(mask)
    if contours:
        cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return cv2.morphologyEx(filled, cv2.MORPH_OPEN, element) > 0
