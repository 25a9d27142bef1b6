"""White cells by their morphology: outlines, nuclei and granules.

Masks are float32 of shape (size, size), 0 to 1, with soft edges. Stains are absorbances of red, green and blue (natural
logarithm, per unit of thickness).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Stain = tuple[float, float, float]
CHROMATIN: Stain = (1.30, 1.95, 0.45)
_SHIFT = 4  # OpenCV draws on a grid of 1/16 pixel


@dataclass(frozen=True)
class Morphology:
    """Morphology of a class of white cells; ranges are (low, high)."""

    radius: tuple[float, float]  # of the cell, in radii of a red cell
    nucleus: str  # a function of `_NUCLEI`
    nucleus_radius: tuple[float, float]  # in radii of the cell
    cytoplasm: Stain
    granules: tuple[int, int] = (0, 0)  # number per cell
    granule_stain: Stain = (0.0, 0.0, 0.0)
    granule_radius: float = 0.03  # in radii of the cell
    chromatin: float = 1.0  # density of the nucleus, 1 for that of most


_NEUTROPHIL_GRANULES = ((30, 60), (0.12, 0.25, 0.08), 0.03)

MORPHOLOGIES: dict[str, Morphology] = {
    "basophil": Morphology((1.4, 1.7), "bilobed", (0.62, 0.7), (0.30, 0.42, 0.12), (40, 60), (1.0, 1.5, 0.5), 0.10),
    "band": Morphology((1.5, 1.8), "band", (0.66, 0.74), (0.14, 0.24, 0.06), *_NEUTROPHIL_GRANULES),
    "eosinophil": Morphology(
        (1.5, 1.8), "bilobed", (0.62, 0.7), (0.12, 0.34, 0.18), (70, 110), (0.1, 0.45, 0.35), 0.075
    ),
    "erythroblast": Morphology((1.05, 1.25), "round", (0.64, 0.72), (0.30, 0.38, 0.20), chromatin=1.25),
    "lymphocyte": Morphology((1.05, 1.3), "round", (0.8, 0.88), (0.50, 0.42, 0.10)),
    "monocyte": Morphology(
        (1.8, 2.2), "indented", (0.62, 0.72), (0.34, 0.34, 0.12), (4, 10), (-0.25, -0.25, -0.08), 0.06
    ),
    "neutrophil": Morphology((1.5, 1.8), "segmented", (0.68, 0.76), (0.14, 0.24, 0.06), *_NEUTROPHIL_GRANULES),
}


def rounded_shape(
    size: int, centre: tuple[float, float] | np.ndarray, radius: float, roughness: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw a circle whose radius varies by a few harmonics, in all by a fraction `roughness`."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    reach = np.ones_like(angle)
    for order in range(2, 6):
        reach += roughness * rng.normal() / order * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    x = centre[0] + radius * reach * np.cos(angle)
    y = centre[1] + radius * reach * np.sin(angle)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [_on_grid(np.stack([x, y], axis=1))], 255, cv2.LINE_AA, _SHIFT)
    return mask.astype(np.float32) / 255


def _line(size: int, points: np.ndarray, width: float) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    cv2.polylines(mask, [_on_grid(points)], False, 255, max(1, round(width)), cv2.LINE_AA, _SHIFT)
    return mask.astype(np.float32) / 255


def _on_grid(points: np.ndarray) -> np.ndarray:
    return np.round(points * 2**_SHIFT).astype(np.int32)


def _arc(centre: np.ndarray, radius: float, start: float, sweep: float, count: int) -> np.ndarray:
    angle = start + np.linspace(0, sweep, count)
    return centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _round(size: int, centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    return rounded_shape(size, centre, radius, 0.04, rng)


def _indented(size: int, centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    whole = rounded_shape(size, centre, radius, 0.08, rng)
    angle = rng.uniform(0, 2 * np.pi)
    indentation = centre + radius * 0.95 * np.array([np.cos(angle), np.sin(angle)])
    return whole * (1 - rounded_shape(size, indentation, radius * rng.uniform(0.45, 0.6), 0.06, rng))


def _lobes(
    size: int, centre: np.ndarray, radius: float, rng: np.random.Generator, count: int, sweep: float
) -> np.ndarray:
    start = rng.uniform(0, 2 * np.pi)
    path = _arc(centre, radius * 0.62, start, sweep, count)
    lobe_radius = radius * (0.52 if count == 2 else 0.40)
    mask = _line(size, _arc(centre, radius * 0.62, start, sweep, 24), max(2.0, radius * 0.14))
    for point in path:
        mask = np.maximum(mask, rounded_shape(size, point, lobe_radius * rng.uniform(0.88, 1.1), 0.08, rng))
    return mask


def _bilobed(size: int, centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    return _lobes(size, centre, radius, rng, 2, np.pi * rng.uniform(0.75, 0.95))


def _segmented(size: int, centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    count = int(rng.integers(3, 6))
    return _lobes(size, centre, radius, rng, count, np.pi * (0.45 * count - 0.25))


def _band(size: int, centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    path = _arc(centre, radius * 0.72, rng.uniform(0, 2 * np.pi), np.pi * rng.uniform(1.1, 1.35), 40)
    return _line(size, path, radius * rng.uniform(0.5, 0.6))


_NUCLEI: dict[str, Callable[[int, np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "round": _round,
    "indented": _indented,
    "bilobed": _bilobed,
    "segmented": _segmented,
    "band": _band,
}


def draw_cell(
    name: str, size: int, centre: np.ndarray, unit: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one white cell of a morphology by its name, in a field where red cells have a radius of `unit` pixels.

    Returns soft masks of the cell and of its nucleus, (size, size), and its absorbance, (size, size, 3).
    """
    morphology = MORPHOLOGIES[name]
    radius = unit * rng.uniform(*morphology.radius)
    whole = rounded_shape(size, centre, radius, 0.06, rng)
    ratio = rng.uniform(*morphology.nucleus_radius)
    offset = rng.normal(0, 0.35, 2) * radius * max(0.0, 0.95 - ratio)
    offset *= min(1.0, radius * max(0.0, 0.97 - ratio) / max(float(np.hypot(*offset)), 1e-6))
    nucleus = _NUCLEI[morphology.nucleus](size, centre + offset, radius * ratio, rng) * whole
    texture = _texture(size, unit * 0.12, rng)
    density = whole[..., None] * np.array(morphology.cytoplasm, np.float32) * (1 + 0.25 * texture[..., None])
    granules = _granules(morphology, size, centre, radius, rng)
    over_nucleus = 0.8 if name == "basophil" else 0.1  # basophil granules lie over the nucleus, too
    granules *= whole * (1 - nucleus * (1 - over_nucleus))
    granule_stain = np.array(morphology.granule_stain, np.float32)
    density += granules[..., None] * granule_stain
    dark = morphology.chromatin * np.array(CHROMATIN, np.float32) * (1.0 + 0.16 * texture[..., None])
    dark = dark + 0.3 * granules[..., None] * granule_stain
    density = density * (1 - nucleus[..., None]) + nucleus[..., None] * dark
    return whole, nucleus, np.maximum(density, 0)


def _granules(
    morphology: Morphology, size: int, centre: np.ndarray, radius: float, rng: np.random.Generator
) -> np.ndarray:
    """Soft mask of a cell's granules."""
    mask = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(*morphology.granules)) if morphology.granules[1] else 0):
        angle, reach = rng.uniform(0, 2 * np.pi), radius * 0.92 * np.sqrt(rng.uniform())
        position = (centre[0] + reach * np.cos(angle), centre[1] + reach * np.sin(angle))
        granule_radius = max(0.8, radius * morphology.granule_radius * rng.uniform(0.6, 1.3))
        mask = np.maximum(mask, rounded_shape(size, position, granule_radius, 0.1, rng))
    return mask


def _texture(size: int, grain: float, rng: np.random.Generator) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), max(0.7, grain))
    return noise / max(float(noise.std()), 1e-6)
