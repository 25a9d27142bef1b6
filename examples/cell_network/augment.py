"""Random views of samples: scale, crowds of pasted cells, and stains that no laboratory of the training set has.

Red cells, cytoplasm and chromatin get colours of their own, drawn at random, so that the network cannot learn them: it
has to see that they differ from each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from labels import ANY, BACKGROUND, WHITE_CELL, Sample

from wbctool.imaging.colour import background_colour

SIDE = 160  # of a view, pixels
DIAMETERS = (18.0, 60.0)  # of red cells in a view, pixels
PASTED = 0.35  # fraction of views with pasted cells
BLACKENED = 0.06  # fraction of views with a black corner


@dataclass
class View:
    """A part of a sample at some scale: absorbance (float32), likely classes, allowed classes, and depth."""

    density: np.ndarray
    likely: np.ndarray
    allowed: np.ndarray
    depth: np.ndarray


class Source:
    """A sample with what augmentation needs of it, computed once."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.background = background_colour(sample.image)
        self.likely = sample.likely

    def view(self, rng: np.random.Generator, scale: float, centre: Sequence[float], side: int) -> View:
        """A square about a point of the sample, turned at random; beyond the edge the image is mirrored."""
        angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
        flip = -1.0 if rng.random() < 0.5 else 1.0
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        matrix = np.array([[cos * flip, -sin, 0], [sin * flip, cos, 0]])
        matrix[:, 2] = np.asarray(centre) - matrix[:, :2] @ np.array([side / 2, side / 2])
        image = self.sample.image
        if scale < 0.7:
            image = cv2.GaussianBlur(image, (0, 0), 0.35 / scale)

        def warp(values: np.ndarray, how: int) -> np.ndarray:
            flags = how | cv2.WARP_INVERSE_MAP
            return cv2.warpAffine(values, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT)

        colours = warp(image, cv2.INTER_LINEAR).astype(np.float32)
        density = -np.log((colours + 1) / (self.background + 1))
        nearest = cv2.INTER_NEAREST
        return View(
            density,
            warp(self.likely, nearest),
            warp(self.sample.allowed, nearest),
            warp(self.sample.depth, nearest),
        )


def pick_view(rng: np.random.Generator, source: Source) -> tuple[View, float]:
    """A view of a sample, more often about a white cell, and the diameter of red cells in it."""
    sample = source.sample
    low, high = DIAMETERS
    diameter = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    scale = min(diameter / sample.diameter, 1.5)
    height, width = sample.allowed.shape
    half = SIDE / 2 / scale
    centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    if sample.cells and rng.random() < 0.7:
        x, y, w, h = sample.cells[rng.integers(len(sample.cells))]
        centre = np.array([x + w / 2, y + h / 2]) + rng.uniform(-0.7, 0.7, 2) * half
    for axis, length in enumerate((width, height)):
        centre[axis] = np.clip(centre[axis], min(half, length / 2), max(length - half, length / 2))
    return source.view(rng, scale, centre, SIDE), scale * sample.diameter


def random_stain(rng: np.random.Generator) -> np.ndarray:
    """Absorbances (classes, 3) of background, red cell, cytoplasm, nucleus and platelet in a made-up stain."""
    while True:
        red = rng.uniform(0.25, 1.6) * rng.dirichlet([1.2, 2.5, 2.0])
        chromatin = rng.uniform(1.0, 4.5) * rng.dirichlet([5, 5, 2.5])
        apart = 1 - red @ chromatin / np.linalg.norm(red) / np.linalg.norm(chromatin)
        if chromatin.sum() > 1.3 * red.sum() and (apart > 0.03 or chromatin.sum() > 2.2 * red.sum()):
            break
    own = rng.uniform(0.2, 1.2) * rng.dirichlet([2, 2, 1.2])
    cytoplasm = rng.uniform(0.1, 0.45) * chromatin * rng.uniform(0.3, 1.0) + own * rng.uniform(0.1, 0.8)
    cytoplasm *= min(1.0, 0.7 * chromatin.sum() / cytoplasm.sum())
    platelet = rng.uniform(0.2, 0.7) * chromatin
    return np.stack([np.zeros(3), red, cytoplasm, chromatin, platelet]).astype(np.float32)


def jittered_stain(rng: np.random.Generator, means: np.ndarray) -> np.ndarray:
    """The stain of an image with each colour, and the whole density, a little changed."""
    return (means * rng.lognormal(0, 0.12, means.shape) * rng.lognormal(0, 0.2)).astype(np.float32)


def class_means(view: View) -> np.ndarray:
    """The mean absorbance of each class in a view; 0 where a class is not seen."""
    counts = np.bincount(view.likely.ravel(), minlength=5)[:5]
    sums = [np.bincount(view.likely.ravel(), view.density[..., c].ravel(), minlength=5)[:5] for c in range(3)]
    return (np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]).astype(np.float32)


def recoloured(rng: np.random.Generator, view: View, stain: np.ndarray) -> np.ndarray:
    """The absorbance of a view whose classes take the colours of a stain; texture is kept."""
    means = class_means(view)
    soft = np.stack([cv2.GaussianBlur((view.likely == k).astype(np.float32), (0, 0), 1.0) for k in range(5)])
    keep = rng.uniform(0.4, 1.1)
    result = soft[0][..., None] * view.density
    for number in range(1, 5):
        size = float(means[number] @ means[number])
        if size < 1e-4:
            continue
        along = view.density @ means[number] / size
        rest = view.density - along[..., None] * means[number]
        changed = along[..., None] * stain[number] + keep * rest * min(
            2.0, np.linalg.norm(stain[number]) / np.sqrt(size)
        )
        result += soft[number][..., None] * changed
    return result.astype(np.float32)


def paste(view: View, piece: View, x: float, y: float) -> None:
    """Lay the white cell in the middle of a piece over a view, about a point."""
    side = piece.allowed.shape[0]
    white = ((piece.allowed & ~WHITE_CELL) == 0) & ((piece.allowed & WHITE_CELL) > 0)
    _, parts = cv2.connectedComponents(white.astype(np.uint8))
    number = parts[side // 2, side // 2]
    if number == 0:
        return
    mask = (parts == number).astype(np.uint8)
    left, top = round(x - side / 2), round(y - side / 2)
    a0, b0 = max(0, -left), max(0, -top)
    a1, b1 = min(side, SIDE - left), min(side, SIDE - top)
    if a1 <= a0 or b1 <= b0:
        return
    inner, outer = (slice(b0, b1), slice(a0, a1)), (slice(top + b0, top + b1), slice(left + a0, left + a1))
    mask = mask[inner]
    alpha = cv2.GaussianBlur(cv2.dilate(mask, np.ones((3, 3), np.uint8)).astype(np.float32), (0, 0), 0.8)[..., None]
    view.density[outer] = view.density[outer] * (1 - alpha) + piece.density[inner] * alpha
    inside = mask > 0
    ring = (cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0) & ~inside
    view.allowed[outer][ring] = ANY
    for name in ("allowed", "depth", "likely"):
        getattr(view, name)[outer][inside] = getattr(piece, name)[inner][inside]


def crowd(rng: np.random.Generator, view: View, diameter: float, sources: Sequence[Source], stain: np.ndarray) -> None:
    """Paste white cells of other images, in the colours of a stain, near each other."""
    middle = rng.uniform(0.2, 0.8, 2) * SIDE
    for _ in range(rng.integers(1, 6)):
        source = sources[rng.integers(len(sources))]
        x, y, w, h = source.sample.cells[rng.integers(len(source.sample.cells))]
        scale = diameter / source.sample.diameter * float(rng.uniform(0.8, 1.2))
        side = int(max(w, h) * scale * 1.5) + 6
        if side > 1.5 * SIDE:
            continue
        piece = source.view(rng, scale, (x + w / 2, y + h / 2), side)
        piece.density = recoloured(rng, piece, stain * rng.lognormal(0, 0.08, (5, 1)).astype(np.float32))
        paste(view, piece, *middle)
        angle = rng.uniform(0, 2 * np.pi)
        middle = middle + 0.5 * side * rng.uniform(0.85, 1.5) * np.array([np.cos(angle), np.sin(angle)])
        middle = np.clip(middle, 0, SIDE)


def photographed(rng: np.random.Generator, density: np.ndarray) -> np.ndarray:
    """An RGB image, uint8, of an absorbance: lamp, uneven light, sharpness, noise, JPEG."""
    side = density.shape[0]
    lamp = rng.uniform(150, 252) * rng.normal(1, 0.07, 3).clip(0.7, 1.15)
    if rng.random() < 0.3:
        y, x = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
        slope = rng.normal(0, 0.15, 2)
        density = density + (x * slope[0] + y * slope[1])[..., None].astype(np.float32)
    image = lamp.clip(60, 255) * np.exp(-density)
    if rng.random() < 0.2:  # washed out
        image = image * 0.9 + rng.uniform(0, 25)
    image = np.clip(image, 0, 255).astype(np.float32)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    elif rng.random() < 0.3:
        image = image + rng.uniform(0.2, 1.0) * (image - cv2.GaussianBlur(image, (0, 0), 1.0))
    if rng.random() < 0.3:
        grey = image.mean(axis=2, keepdims=True)
        image = grey + rng.uniform(0.5, 1.5) * (image - grey)
    if rng.random() < 0.4:
        image = image + rng.normal(0, rng.uniform(1, 7), image.shape)
    if rng.random() < 0.2:
        image = 255 * (np.clip(image, 0, 255) / 255) ** rng.uniform(0.7, 1.4)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 95))])
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return pixels


def blacken(rng: np.random.Generator, image: np.ndarray, view: View) -> None:
    """Blacken what lies beyond a random line, as where a turned image or a round field of view ends."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    beyond = x * np.cos(angle) + y * np.sin(angle) > rng.uniform(0.2, 0.65) * SIDE
    image[beyond] = rng.integers(0, 12)
    view.allowed[beyond] = BACKGROUND
    view.depth[beyond] = 0


def augmented(
    rng: np.random.Generator, source: Source, sources: Sequence[Source]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image (SIDE, SIDE, 3), uint8, its allowed classes and its depth, both (SIDE, SIDE), uint8."""
    view, diameter = pick_view(rng, source)
    means = class_means(view)
    crowded = bool(sources) and rng.random() < PASTED
    if crowded or rng.random() < 0.55:
        stain = random_stain(rng)
        view.density = recoloured(rng, view, stain)
        if crowded:
            crowd(rng, view, diameter, sources, stain)
    elif rng.random() < 0.7:
        view.density = recoloured(rng, view, jittered_stain(rng, means))
    image = photographed(rng, view.density)
    if rng.random() < BLACKENED:
        blacken(rng, image, view)
    return image, view.allowed, view.depth
