"""Fields of view: cells on a slide, with the slide's stain, lamp, blur, noise and JPEG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wbctool.drawing.cells import MORPHOLOGIES, draw_cell, rounded_shape
from wbctool.imaging.files import write_png
from wbctool.imaging.label_image import Objects, Region, to_labels
from wbctool.records import MASK, Record, to_line, with_relative_paths
from wbctool.records.storage import atomic, write_bytes

Painter = Callable[[int, np.ndarray, float, np.random.Generator], tuple[np.ndarray, np.ndarray]]
CLASSES = (*MORPHOLOGIES, "platelet")
_RED: np.ndarray = np.array([0.10, 0.42, 0.30], np.float32)
_PLATELET: np.ndarray = np.array([0.55, 0.75, 0.20], np.float32)


@dataclass(frozen=True)
class Slide:
    """What all fields of a slide have in common."""

    background: tuple[float, float, float]  # its RGB, 0 to 255
    stain: tuple[float, float, float]  # factor on all absorbances, per channel
    blur: float  # standard deviation of the optics, in pixels of a field of 192
    noise: float  # standard deviation of the sensor, grey levels
    quality: int  # of the JPEG, 0 to 100

    @classmethod
    def random(cls, rng: np.random.Generator) -> Slide:
        """Return a random slide: warm to cool lamps, weak to strong stains."""
        background = np.array([244, 232, 222]) + rng.normal(0, [5, 5, 10])
        stain = rng.uniform(0.9, 1.15) * rng.normal(1, 0.03, 3)
        return cls(
            tuple(np.clip(background, 190, 252).tolist()),
            tuple(stain.tolist()),
            float(rng.uniform(0.5, 0.9)),
            float(rng.uniform(1.0, 3.0)),
            int(rng.integers(85, 96)),
        )


def draw_field(
    name: str, rng: np.random.Generator, slide: Slide | None = None, size: int = 192, red_cells: int = 9
) -> tuple[np.ndarray, Objects]:
    """Draw one field of view and its exact truth.

    Args:
        name: the class of its white cell, or `platelet` for a field without one.
        rng: source of randomness.
        slide: its slide; a random one by default.
        size: side of the field, pixels.
        red_cells: number of red cells; fewer where there is no room.

    Returns:
        RGB (size, size, 3), uint8, before JPEG; and the objects with their masks.
    """
    slide = slide or Slide.random(rng)
    unit = 0.1 * size
    density = np.zeros((size, size, 3), np.float32)
    truth = Objects()
    drawn: list[tuple[np.ndarray, float]] = []  # centres and radii

    def draw(paint: Painter, into: list[Region], centre: np.ndarray, radius: float, spacing: float) -> None:
        if all(np.hypot(*(centre - other)) > radius * spacing + reach for other, reach in drawn):
            mask, absorbance = paint(size, centre, radius, rng)
            density[:] += absorbance
            if mask.max() >= 0.5:
                into.append(_region(mask))
                drawn.append((centre, radius))

    middle = np.array([size / 2, size / 2]) + rng.normal(0, 0.04 * size, 2)
    if name != "platelet":
        whole_mask, nucleus_mask, absorbance = draw_cell(name, size, middle, unit, rng)
        density += absorbance
        whole = _region(whole_mask)
        truth.cells.append((whole, _region(nucleus_mask)))
        drawn.append((middle, float(np.sqrt(whole.area / np.pi))))
    platelets = [middle] if name == "platelet" else []
    platelets += [rng.uniform(0, size, 2) for _ in range(int(rng.integers(0, 3)))]
    for number, centre in enumerate(platelets):
        radius = unit * rng.uniform(0.3, 0.45) * (1.2 if number == 0 and name == "platelet" else 1.0)
        draw(_draw_platelet, truth.platelets, centre, radius, 1.3)
    for _ in range(red_cells * 4):
        if len(truth.red_cells) < red_cells:
            centre, radius = rng.uniform(-0.05 * size, 1.05 * size, 2), unit * rng.normal(1, 0.07)
            draw(_draw_red_cell, truth.red_cells, centre, radius, 1.03)
    return _photograph(density, slide, rng), truth


def _region(mask: np.ndarray) -> Region:
    return Region.from_mask((mask >= 0.5).astype(np.uint8))


def _draw_red_cell(
    size: int, centre: np.ndarray, radius: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    mask = rounded_shape(size, centre, radius, 0.04, rng)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    distance = np.hypot(x - centre[0], y - centre[1]) / radius
    thickness = 1 - rng.uniform(0.45, 0.85) * np.exp(-((distance / rng.uniform(0.4, 0.55)) ** 2))
    return mask, (mask * thickness)[..., None] * _RED


def _draw_platelet(
    size: int, centre: np.ndarray, radius: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    mask = rounded_shape(size, centre, radius, 0.22, rng)
    grains = cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), max(0.8, radius * 0.15))
    grains = np.clip(1 + 0.35 * grains / max(float(grains.std()), 1e-6), 0.3, 2)
    return mask, (mask * grains)[..., None] * _PLATELET


def _photograph(density: np.ndarray, slide: Slide, rng: np.random.Generator) -> np.ndarray:
    size = density.shape[0]
    light = np.array(slide.background, np.float32) * np.exp(-density * np.array(slide.stain, np.float32))
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    tilt = rng.normal(0, 0.025, 2)
    light *= (1 + tilt[0] * x + tilt[1] * y - rng.uniform(0, 0.06) * (x**2 + y**2))[..., None]
    light = cv2.GaussianBlur(light, (0, 0), max(0.3, slide.blur * size / 192))
    light += rng.normal(0, slide.noise, light.shape)
    return np.clip(np.round(light), 0, 255).astype(np.uint8)


def write_set(
    folder: Path,
    per_class: int = 24,
    slides: int = 6,
    size: int = 192,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
) -> None:
    """Write `images/CLASS/sNN_CLASS_NNN.jpg` and `truth/`, a folder of mask records, under `folder`.

    Fields of a class are assigned to the slides in turn; the slide's number is in the name.

    Args:
        folder: created if missing.
        per_class: fields of each class.
        slides: number of slides, each with its own stain, lamp and optics.
        size: side of a field, pixels.
        seed: of all randomness.
        classes: some of `CLASSES`.
    """
    rng = np.random.default_rng(seed)
    all_slides = [Slide.random(rng) for _ in range(slides)]
    truth_folder = (folder / "truth").absolute()
    records: list[Record] = []
    for name in classes:
        for number in range(per_class):
            field_rng = np.random.default_rng((seed, CLASSES.index(name), number))
            slide, group = all_slides[number % slides], f"s{number % slides + 1:02d}"
            image, objects = draw_field(name, field_rng, slide, size)
            stem = f"{name}/{group}_{name}_{number + 1:03d}"
            path = (folder / "images" / f"{stem}.jpg").absolute()
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, slide.quality])
            write_bytes(path, data.tobytes())
            labels, cells = to_labels(objects, image.shape[:2])
            mask = truth_folder / f"{stem}.png"
            write_png(mask, labels)
            record = {
                "schema": MASK,
                "id": f"{stem}.jpg",
                "path": str(path),
                "label": name,
                "group": group,
                "size": [size, size],
                "method": "drawn",
                "mask": str(mask),
                "cells": cells,
            }
            records.append(with_relative_paths(record, truth_folder))
    with atomic(truth_folder / "records.jsonl", "w") as stream:
        stream.writelines(to_line(record) + "\n" for record in records)
