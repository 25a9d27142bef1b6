"""The data sets that the cell network learns from, as samples with labels.

    python examples/cell_network/data_sets.py DATA CACHE

reads the folders of DATA and writes CACHE. Licences are in the model card, `wbctool/segmentation/network/README.md`.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from labels import Sample, from_boxes, of_masks, of_pbc, tile_boxes, voc_boxes, yolo_boxes

from wbctool.imaging.files import read_image
from wbctool.imaging.label_image import Objects
from wbctool.segmentation import find_objects
from wbctool.segmentation.stain import Field

# of a red cell, pixels, where it is not measured
DIAMETERS = {"pbc": 71, "set-1": 40, "set-2": 78, "bcisc": 59, "tiles": 71, "bccd": 94, "txl-575": 139, "txl-416": 64}


def diameter_of(image: np.ndarray, laboratory: str) -> float:
    """Diameter of a red cell in an image, pixels; that of the data set where what is measured is far from it."""
    field, usual = Field.of(image), DIAMETERS[laboratory]
    measured = 2 * np.sqrt(field.red_area / np.pi) / field.scale if field.red_area else usual
    return float(measured) if 0.75 < measured / usual < 1.33 else usual


def pbc(path: Path) -> Sample:
    image = read_image(path)
    return of_pbc(path, find_objects(image, "stain")).sample(path.name, "pbc", diameter_of(image, "pbc"))


def expert(laboratory: str, path: Path) -> Sample:
    """An image of `wbc-masks`, whose masks have nucleus and cytoplasm, or of `bcisc`, whose have whole cells."""
    image = read_image(path)
    truth = cv2.imread(str(path.parents[1] / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
    nucleus = (truth > 200).astype(np.uint8) if laboratory != "bcisc" else None
    whole = (truth > 64).astype(np.uint8)
    labels = of_masks(image, whole, nucleus, find_objects(image, "stain"))
    return labels.sample(path.name, laboratory, diameter_of(image, laboratory))


def boxed(laboratory: str, path: Path) -> Sample:
    image = read_image(path)
    height, width = image.shape[:2]
    if laboratory == "bccd":
        boxes = list(voc_boxes(path.parents[1] / "Annotations" / f"{path.stem}.xml"))
    elif laboratory == "tiles":
        boxes = tile_boxes(path.parents[1] / "boxes.csv", width).get(path.name, [])
    else:
        boxes = list(yolo_boxes(path.parents[1] / "labels" / f"{path.stem}.txt", width, height))
    objects: Objects = find_objects(image, "stain")
    whole = [cell.to_mask(image.shape[:2]) for cell, _ in objects.cells]
    sizes = [np.sqrt((b[2] - b[0]) * (b[3] - b[1])) for kind, b in boxes if kind == "rbc"]
    usual = float(np.median(sizes)) if len(sizes) > 3 else DIAMETERS[laboratory]
    return from_boxes(image, boxes, whole).sample(path.name, laboratory, usual)


def sources(data: Path) -> Iterator[tuple[Callable[[Path], Sample], list[Path]]]:
    """What makes a sample of each file, and the files."""
    yield pbc, files(data / "pbc") + files(data / "pbc-more")[::3]
    for laboratory, folder in (("set-1", "wbc-masks/dataset1"), ("set-2", "wbc-masks/dataset2"), ("bcisc", "bcisc")):
        yield partial(expert, laboratory), files(data / folder / "images")
    yield partial(boxed, "bccd"), files(data / "bccd" / "JPEGImages")
    for laboratory in ("txl-575", "txl-416", "tiles"):
        yield partial(boxed, laboratory), files(data / laboratory / "images")


def files(folder: Path) -> list[Path]:
    """Images of a folder and its class folders."""
    kinds = {".jpg", ".png", ".bmp"}
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds and not p.name.startswith("."))


def read_samples(data: Path, processes: int = 2) -> list[Sample]:
    """All samples."""
    with ProcessPoolExecutor(processes) as pool:
        return [sample for make, paths in sources(data) for sample in pool.map(make, paths, chunksize=8)]


if __name__ == "__main__":
    samples = read_samples(Path(sys.argv[1]))
    with open(sys.argv[2], "wb") as stream:
        pickle.dump(samples, stream)
    print(f"{len(samples):,} samples")
