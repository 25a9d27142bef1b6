"""The default method: nuclei by their stain, whole cells by two colours learnt from the image itself.

1. Absorbance is measured against the empty slide, so lamp and white balance cancel out.
2. Nuclei are where saturation × (1 − green) exceeds Otsu's threshold and the stain absorbs red and
   green well above blue (haemoglobin does not); lobes are gathered into nuclei.
3. Around each nucleus two Gaussian colour models compete: what lies in a ring about the nucleus
   (its cytoplasm) and what lies far from every nucleus (red cells). A pixel that is not empty slide
   goes to the likelier; an opening cuts thin bridges, round bodies that hang on by a neck are cut off,
   and what hangs on the nucleus is the cell.
4. Small stained objects are platelets; the rest of what absorbs is red cells, those that touch cut
   apart by a watershed on their distance transform.

How well it agrees with experts is printed by `tests/benchmarks/masks.py`.
"""

from __future__ import annotations

import cv2
import numpy as np

from wbctool.imaging.colour import background_colour, optical_density, saturation
from wbctool.segmentation.objects import Objects
from wbctool.segmentation.regions import (
    components,
    disk,
    fill_holes,
    gather_lobes,
    hull_of,
    otsu,
    tidy,
)

EMPTY = 0.12  # absorbance under which the slide is empty
STAINED = 0.5  # red + green − blue absorbance that only stained chromatin and granules reach
REACH = 2.2  # a cell ends within this many radii of its nucleus' hull
RING = 0.25  # width of the ring of cytoplasm, in radii of the nucleus' hull
AWAY = 0.9  # what is farther than this many radii from every nucleus is not cytoplasm
NEARNESS = 0.6  # log-odds lost per radius of distance from the nucleus
OPENING = 0.3  # radius of the opening, in radii of the nucleus' hull
NECK = 0.3  # half the width of a neck that parts a neighbour from the cell, in the same radii
NUCLEUS_SHARE = 0.35  # a nucleus has at least this share of a red cell's area
LARGE_SHARE = 0.85  # and is one for sure from here on; between the two it must be dense,
RED_SHARE = 0.025  # a red cell's share of a field in which none can be measured
DENSE = 2.7  # as chromatin is and a large platelet is not (chroma of its densest tenth)
MIN_SHARE = 80 / 224**2  # least share of the image for a stained object


def segment(image: np.ndarray) -> Objects:
    """White cells with nuclei, platelets and red cells of an RGB image (height, width, 3), uint8."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    density = optical_density(smooth, background_colour(smooth))
    filled = (np.abs(density).max(axis=2) > EMPTY).astype(np.uint8)
    chroma = density[..., 0] + density[..., 1] - density[..., 2]
    measure = saturation(image) * (1.0 - image[..., 1].astype(np.float32) / 255.0)
    dark = tidy(otsu(measure) & (chroma > STAINED).astype(np.uint8))
    stained = gather_lobes(dark, MIN_SHARE / 4 * dark.size)
    red_area = _red_cell_area(filled, dark)
    unit = red_area or RED_SHARE * dark.size
    nuclei, small = [], []
    for mask in stained:
        share = mask.sum() / unit
        dense = share >= NUCLEUS_SHARE and np.percentile(chroma[mask > 0], 90) >= DENSE
        (nuclei if share >= LARGE_SHARE or dense else small).append(mask)
    wholes = _whole_cells(nuclei, density, filled, chroma)
    taken = np.zeros_like(filled)
    for whole in wholes:
        taken |= whole
    platelets = [_platelet(mask, filled, red_area) for mask in small if not (mask & taken).any()]
    for mask in platelets:
        taken |= mask
    rest = fill_holes(filled) & (1 - cv2.dilate(taken, disk(1)))
    red = _red_cells(rest, red_area) if red_area else []
    return Objects(cells=list(zip(wholes, nuclei, strict=True)), platelets=platelets, red_cells=red)


def _whole_cells(
    nuclei: list[np.ndarray], density: np.ndarray, filled: np.ndarray, chroma: np.ndarray
) -> list[np.ndarray]:
    if not nuclei:
        return []
    hulls = [hull_of(nucleus) for nucleus in nuclei]
    radii = [float(np.sqrt(hull.sum() / np.pi)) for hull in hulls]
    away = [cv2.distanceTransform(1 - hull, cv2.DIST_L2, 5) for hull in hulls]
    reach = [distance / radius for distance, radius in zip(away, radii, strict=True)]
    nearest = np.min(reach, axis=0)
    outside = (filled > 0) & (nearest > AWAY) & (chroma < STAINED + 0.4)
    others = _model(density[outside]) if outside.sum() > 0.02 * filled.size else None
    body = fill_holes(filled)
    wholes = []
    for nucleus, hull, radius, distance in zip(nuclei, hulls, radii, reach, strict=True):
        own = (distance <= nearest) & (distance < REACH) & (body > 0)
        ring = own & (distance > 1.0 / radius) & (distance < RING) & (filled > 0)
        if others is not None and ring.sum() > 20:
            odds = _log_odds(density, density[ring], others)
            odds = cv2.GaussianBlur(odds, (0, 0), max(1.0, 0.06 * radius)) + 0.6 - NEARNESS * distance
            own &= odds > 0
        mask = fill_holes(own.astype(np.uint8) | hull)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disk(max(1, round(OPENING * radius)))) | hull
        mask = _without_neighbours(mask, hull, radius)
        kept = [part for part in components(mask) if (part & nucleus).any()]
        wholes.append(fill_holes(np.bitwise_or.reduce(kept) | nucleus))
    return wholes


def _without_neighbours(mask: np.ndarray, hull: np.ndarray, radius: float) -> np.ndarray:
    """A cell's mask without the round bodies that hang on it by a neck: red cells of its own colour."""
    cores = cv2.erode(mask, disk(max(1, round(NECK * radius))))
    if cv2.connectedComponents(cores)[0] <= 2 or not (cores & hull).any():
        return mask
    # a pixel goes to the core that is nearest
    _, nearest = cv2.distanceTransformWithLabels(1 - cores, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    own = np.unique(nearest[(cores & hull) > 0])
    return (mask & np.isin(nearest, own).astype(np.uint8)) | hull


_Model = tuple[np.ndarray, np.ndarray, float]


def _model(samples: np.ndarray) -> _Model:
    """Centre, inverse covariance and log-determinant of colours (n, 3)."""
    centre = np.median(samples, axis=0)
    spread = np.cov((samples - centre).T) + np.eye(3) * 0.001
    return centre, np.linalg.inv(spread).astype(np.float32), float(np.log(np.linalg.det(spread)))


def _distance(colours: np.ndarray, model: _Model) -> np.ndarray:
    """Squared Mahalanobis distance of colours (…, 3)."""
    away = colours - model[0]
    return ((away @ model[1]) * away).sum(axis=-1)


def _log_odds(density: np.ndarray, ring: np.ndarray, others: _Model) -> np.ndarray:
    """Log-odds of cytoplasm against red cells, within ±4. The ring's own red pixels do not teach it."""
    unlike = ring[_distance(ring, others) > 4]
    own = _model(unlike if len(unlike) > 20 else ring)
    odds = 0.5 * (_distance(density, others) + others[2] - _distance(density, own) - own[2])
    return np.clip(odds, -4, 4).astype(np.float32)


def _red_cell_area(filled: np.ndarray, dark: np.ndarray) -> float | None:
    """Median area of single, whole red cells: round, unstained, inside; None where none is seen."""
    areas = []
    contours, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    height, width = filled.shape
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        area = cv2.contourArea(contour)
        inside = x > 0 and y > 0 and x + w < width and y + h < height
        if not inside or area < 0.002 * filled.size or area < 0.9 * cv2.contourArea(cv2.convexHull(contour)):
            continue
        own = np.zeros((h, w), np.uint8)
        cv2.drawContours(own, [contour], 0, 1, -1, offset=(-x, -y))
        if np.count_nonzero(own & dark[y : y + h, x : x + w]) < 0.05 * area:
            areas.append(area)
    return float(np.median(areas)) if areas else None


def _platelet(core: np.ndarray, filled: np.ndarray, red_area: float | None) -> np.ndarray:
    """A platelet: its granules and the paler rim about them."""
    radius = float(np.sqrt(core.sum() / np.pi))
    near = cv2.dilate(core, disk(max(1, round(0.5 * radius))))
    whole = fill_holes((near & filled) | core)
    return whole if red_area is None or whole.sum() < red_area else core


def _red_cells(mask: np.ndarray, red_area: float) -> list[np.ndarray]:
    """Red cells in a mask of all that absorbs and is nothing else; those that touch cut apart."""
    radius = float(np.sqrt(red_area / np.pi))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disk(max(1, round(0.2 * radius))))
    depth = cv2.GaussianBlur(cv2.distanceTransform(mask, cv2.DIST_L2, 5), (0, 0), max(1.0, 0.1 * radius))
    peaks = (depth >= cv2.dilate(depth, disk(max(1, round(0.45 * radius))))) & (depth > 0.4 * radius)
    seeds = np.zeros_like(mask)
    for y, x in np.argwhere(peaks):
        cv2.circle(seeds, (int(x), int(y)), max(1, int(0.5 * depth[y, x])), 1, -1)
    if not seeds.any():
        return []
    # a pixel goes to the cell whose core is nearest
    _, basin = cv2.distanceTransformWithLabels(1 - seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    found = []
    for value in range(1, int(basin.max()) + 1):
        parts = components(((basin == value) & (mask > 0)).astype(np.uint8), 0.25 * red_area)
        found += parts[:1]
    return found
