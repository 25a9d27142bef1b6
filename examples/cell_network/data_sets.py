"""The data sets that the cell network learns from, as samples with labels.

    python examples/cell_network/data_sets.py DATA CACHE.npz [--refine]

reads the folders of DATA and writes CACHE. With `--refine` the network of the package tells nucleus from cytoplasm
where nobody else does. Licences are in the model card, `wbctool/segmentation/unet.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from labels import (
    BACKGROUND,
    PLATELET,
    RED_CELL,
    Labels,
    Sample,
    from_boxes,
    of_masks,
    of_pbc,
    refined,
    tile_boxes,
    voc_boxes,
    write_samples,
    yolo_boxes,
)

from wbctool.drawing.smear import CLASSES, Slide, draw_field
from wbctool.imaging.files import read_image
from wbctool.imaging.label_image import Objects
from wbctool.segmentation import find_objects, maps
from wbctool.segmentation.stain import Field

# of a red cell, pixels, where it is not measured
DIAMETERS = {"pbc": 71, "set-1": 40, "set-2": 78, "bcisc": 59, "tiles": 71, "bccd": 94, "txl-575": 139, "txl-416": 64}


def diameter_of(image: np.ndarray, laboratory: str) -> float:
    """Diameter of a red cell in an image, pixels; that of the data set where what is measured is far from it."""
    field, usual = Field.of(image), DIAMETERS[laboratory]
    measured = 2 * np.sqrt(field.red_area / np.pi) / field.scale if field.red_area else usual
    return float(measured) if 0.75 < measured / usual < 1.33 else usual


def pbc(refine: bool, path: Path) -> Sample:
    image = read_image(path)
    labels = of_pbc(path, find_objects(image, "stain"), untrusted=refine)
    return labels.sample(path.name, "pbc", diameter_of(image, "pbc"))


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


def drawn(seed: int) -> Sample:
    """A drawn field, with its exact truth."""
    rng = np.random.default_rng(seed)
    name = CLASSES[seed % len(CLASSES)]
    image, objects = draw_field(name, rng, Slide.random(rng), red_cells=int(rng.integers(4, 14)))
    labels, shape = Labels(image), image.shape[:2]
    labels.allowed[:] = BACKGROUND
    labels.depth[:] = 0
    for region in objects.red_cells:
        labels.draw(region.to_mask(shape), RED_CELL)
    for region in objects.platelets:
        labels.draw(region.to_mask(shape), PLATELET)
    for whole, nucleus in objects.cells:
        labels.draw_white(whole.to_mask(shape), nucleus.to_mask(shape))
    sizes = [region.area for region in objects.red_cells if not region.touches_edge(shape)]
    return labels.sample(f"{seed}.png", "drawn", 2 * float(np.sqrt(np.median(sizes) / np.pi)) if sizes else 36.0)


def parted(sample: Sample) -> Sample:
    """A sample refined by the package's network."""
    height, width = sample.allowed.shape
    seen = maps.maps_of(sample.image, min(1.0, 40 / sample.diameter), maps.load())
    white = cv2.resize(seen.kinds[maps.WHITE], (width, height), interpolation=cv2.INTER_LINEAR)
    return refined(sample, white, cv2.resize(seen.nucleus, (width, height), interpolation=cv2.INTER_LINEAR))


def sources(data: Path, refine: bool) -> Iterator[tuple[Callable[[Path], Sample], list[Path]]]:
    """What makes a sample of each file, and the files."""
    yield partial(pbc, refine), files(data / "pbc") + files(data / "pbc-more")[::3]
    for laboratory, folder in (("set-1", "wbc-masks/dataset1"), ("set-2", "wbc-masks/dataset2"), ("bcisc", "bcisc")):
        yield partial(expert, laboratory), files(data / folder / "images")
    yield partial(boxed, "bccd"), files(data / "bccd" / "JPEGImages")
    for laboratory in ("txl-575", "txl-416", "tiles"):
        yield partial(boxed, laboratory), files(data / laboratory / "images")


def files(folder: Path) -> list[Path]:
    """Images of a folder and its class folders."""
    kinds = {".jpg", ".png", ".bmp"}
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds and not p.name.startswith("."))


def make_samples(data: Path, refine: bool, processes: int = 2) -> list[Sample]:
    """All samples."""
    with ProcessPoolExecutor(processes) as pool:
        samples = [s for make, paths in sources(data, refine) for s in pool.map(make, paths, chunksize=8)]
        if refine:
            samples = list(pool.map(parted, samples, chunksize=8))
        return samples + list(pool.map(drawn, range(200), chunksize=8))


if __name__ == "__main__":
    samples = make_samples(Path(sys.argv[1]), "--refine" in sys.argv)
    write_samples(samples, Path(sys.argv[2]))
    print(f"{len(samples):,} samples")
