"""Agreement of segmentation methods with experts, one row per laboratory.

    python tests/benchmarks/masks.py [--methods unet,stain] [--laboratories set-1,pbc] [--every 3] [--changed] [--worst]

- Dice of nuclei and whole cells with experts' masks, of which some draw the central cell only;
- recall and precision of white and red cells at IoU 0.5, where they drew boxes;
- PBC, whose classes say what is in the centre: nuclei that have the shape of their class, images without a white cell.

A method may be a network file of `examples/cell_network/train.py`, such as one trained without a laboratory.
`--changed` measures the same images in other stains, lamps, densities and sizes, as losses of Dice. `--worst` names the
ten worst images of each row. `--every 3` takes every third image.
"""

import argparse
import csv
import os
import re
import sys
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from figures import figure

from wbctool.imaging.colour import background_colour, optical_density
from wbctool.imaging.files import read_image
from wbctool.imaging.label_image import to_labels
from wbctool.segmentation import find_objects

DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MASKS = {"set-1": "wbc-masks/dataset1", "set-2": "wbc-masks/dataset2"}  # the cell in the middle is drawn
FIELDS = {"all-idb2": "all-idb2", "bcisc": "bcisc", "bccd": "bccd"}  # all white cells are drawn
BOXES = {"bccd": "bccd", "tiles": "tiles", "txl-575": "txl-575", "txl-416": "txl-416"}
# Of a nucleus: least solidity, and least fraction of the cell; classes of PBC whose nucleus is one piece
SHAPES = {"LY": (0.85, 0.4), **dict.fromkeys(("ERB", "MO", "MY", "MMY", "PMY"), (0.75, 0.0))}


def dice(a, b):
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def images_of(folder, every=1):
    kinds = {".jpg", ".png", ".bmp", ".tif"}
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds and not p.name.startswith("."))
    return found[::every]


def truth_of(laboratory, path):
    """The expert's mask: 255 nucleus, other positive values the rest of the cell."""
    folder = DATA / {**MASKS, **FIELDS}[laboratory] / "masks"
    return cv2.imread(str(folder / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)


# --- changes of an image ---------------------------------------------------------------------------------


def restained(image, truth, red=None, chromatin=None, density=1.0):
    """An image whose red cells, or chromatin, absorb in another direction of colour, as strongly as before."""
    background = background_colour(image)
    absorbance = density * optical_density(image, background)
    for direction, where in ((red, truth == 0), (chromatin, truth > 0)):
        if direction is None:
            continue
        strength = np.maximum(absorbance, 0).sum(axis=2)
        if direction is chromatin:  # of what is dark in the cell
            inside = strength[truth > 0]
            level, _ = cv2.threshold(np.clip(inside * 50, 0, 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
            where = where & (strength * 50 > level)
        soft = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 1.0)[..., None]
        colour = strength[..., None] * np.array(direction, np.float32)
        absorbance = absorbance * (1 - soft) + soft * (0.8 * colour + 0.2 * absorbance)
    return np.clip((background + 1) * np.exp(-absorbance) - 1, 0, 255).astype(np.uint8)


def lit(image, _truth, lamp):
    return np.clip(image * np.array(lamp), 0, 255).astype(np.uint8)


def resized(image, _truth, factor):
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)


CHANGES = {
    "red cells blue-grey": partial(restained, red=(0.40, 0.33, 0.27)),
    "chromatin magenta": partial(restained, chromatin=(0.20, 0.55, 0.25)),
    "density × 0.6": partial(restained, density=0.6),
    "density × 1.4": partial(restained, density=1.4),
    "lamp yellow": partial(lit, lamp=(1.0, 0.95, 0.70)),
    "lamp blue": partial(lit, lamp=(0.75, 0.90, 1.0)),
    "size × 0.5": partial(resized, factor=0.5),
    "size × 2": partial(resized, factor=2.0),
}


# --- masks -----------------------------------------------------------------------------------------------


def segmented(method, image):
    """Label image and cells of a method, or of `unet` with the network in a file."""
    given = (
        {"method": "unet", "parameters": {"unet_network": method}} if method.endswith(".onnx") else {"method": method}
    )
    return to_labels(find_objects(image, **given), image.shape[:2])


def central(method, laboratory, change, path):
    """Dice of the nucleus and of the whole cell that lies nearest to the expert's; seconds."""
    truth = truth_of(laboratory, path)
    image = read_image(path)
    if change:
        image = CHANGES[change](image, truth)
        truth = cv2.resize(truth, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    start = time.perf_counter()
    labels, cells = segmented(method, image)
    spent = time.perf_counter() - start
    white = [cell for cell in cells if cell["kind"] == "wbc"]
    if laboratory not in FIELDS and white:
        moments = cv2.moments((truth > 64).astype(np.uint8), binaryImage=True)
        middle = np.array([moments["m10"], moments["m01"]]) / max(moments["m00"], 1)
        white = [min(white, key=lambda c: np.hypot(*(np.array(c["centroid"]) - middle)))]
    values = [cell["nucleus"]["value"] for cell in white]
    nucleus = np.isin(labels, values)
    whole = np.isin(labels, [cell["value"] for cell in white]) | nucleus
    drawn = truth.max() == 255 and laboratory != "bcisc"
    return dice(nucleus, truth > 200) if drawn else np.nan, dice(whole, truth > 64), bool(white), spent


# --- boxes -----------------------------------------------------------------------------------------------


def boxes_of(laboratory, path):
    """Kind, and left, top, right, bottom of each box."""
    if laboratory == "bccd":
        kinds = {"WBC": "wbc", "RBC": "rbc", "Platelets": "platelet"}
        for entry in ET.parse(DATA / "bccd" / "Annotations" / f"{path.stem}.xml").getroot().iter("object"):
            box = [float(entry.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
            yield kinds[entry.findtext("name")], box
    elif laboratory == "tiles":
        with (DATA / "tiles" / "boxes.csv").open() as stream:
            for row in csv.DictReader(stream):
                if row["image"] == path.name:
                    yield row["label"], [256 * float(row[side]) for side in ("xmin", "ymin", "xmax", "ymax")]
    else:
        height, width = read_image(path).shape[:2]
        for line in (DATA / laboratory / "labels" / f"{path.stem}.txt").read_text().splitlines():
            number, x, y, w, h = map(float, line.split())
            left, top = (x - w / 2) * width, (y - h / 2) * height
            yield ("wbc", "rbc", "platelet")[int(number)], [left, top, left + w * width, top + h * height]


def overlap(a, b):
    """IoU of boxes."""
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def matched(truth, found):
    """How many pairs of boxes overlap by half, each box in one pair, the best pairs first."""
    pairs = sorted(((overlap(t, f), i, j) for i, t in enumerate(truth) for j, f in enumerate(found)), reverse=True)
    left, right = set(), set()
    for iou, i, j in pairs:
        if iou >= 0.5 and i not in left and j not in right:
            left.add(i)
            right.add(j)
    return len(left)


def boxed(method, laboratory, path):
    """Matched, true and found boxes of white and of red cells."""
    _, cells = segmented(method, read_image(path))
    truth = defaultdict(list)
    for kind, box in boxes_of(laboratory, path):
        truth[kind].append(box)
    row = []
    for kind in ("wbc", "rbc"):
        found = [(x, y, x + w, y + h) for c in cells if c["kind"] == kind for x, y, w, h in [c["bbox"]]]
        row += [matched(truth[kind], found), len(truth[kind]), len(found)]
    return row


# --- PBC -------------------------------------------------------------------------------------------------


def shaped(method, path):
    """Pieces of the central cell's nucleus, its solidity and its fraction of the cell; None without a cell."""
    image = read_image(path)
    labels, cells = segmented(method, image)
    middle = np.array(image.shape[1::-1]) / 2
    white = [cell for cell in cells if cell["kind"] == "wbc"]
    if not white:
        return None
    cell = min(white, key=lambda c: np.hypot(*(np.array(c["centroid"]) - middle)))
    nucleus = (labels == cell["nucleus"]["value"]).astype(np.uint8)
    contours, _ = cv2.findContours(nucleus, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return 0, 0.0, 0.0
    largest = max(contours, key=cv2.contourArea)
    solidity = cv2.contourArea(largest) / max(cv2.contourArea(cv2.convexHull(largest)), 1)
    return len(contours), solidity, cell["nucleus"]["area"] / cell["area"] if cell["area"] else 0.0


# --- tables ----------------------------------------------------------------------------------------------


def worst(names, values):
    order = np.argsort(values)[:10]
    print("    worst: " + ", ".join(f"{names[i]} {values[i]:.2f}" for i in order))


def table_of_masks(pool, method, options):
    heads = ("nucleus", "< 0.8", "even", "odd", "cell", "< 0.8", "none", "ms")
    print(
        f"\n{Path(method).stem:12} " + " ".join(f"{head:>{8 if head in ('nucleus', 'cell') else 6}}" for head in heads)
    )
    for laboratory, folder in {**MASKS, **FIELDS}.items():
        if laboratory not in options.laboratories:
            continue
        place = DATA / folder / ("JPEGImages" if laboratory == "bccd" else "images")
        paths = images_of(place, options.every)
        rows = np.array(list(pool.map(partial(central, method, laboratory, None), paths, chunksize=4)), float)
        nucleus, cell, white, spent = rows.T
        print(
            f"{laboratory:12} {np.nanmean(nucleus) if not np.isnan(nucleus).all() else np.nan:8.4f} "
            f"{(nucleus < 0.8).mean():6.1%} {nucleus[::2].mean():6.3f} {nucleus[1::2].mean():6.3f} "
            f"{cell.mean():8.4f} {(cell < 0.8).mean():6.1%} {1 - white.mean():6.1%} {1000 * spent.mean():6.1f}"
        )
        figure(f"masks {method}: nucleus Dice, {laboratory}", nucleus.mean())
        figure(f"masks {method}: cell Dice, {laboratory}", cell.mean())
        figure(f"masks {method}: nucleus under 0.8, {laboratory}", (nucleus < 0.8).mean())
        figure(f"masks {method}: without a white cell, {laboratory}", 1 - white.mean())
        if options.worst:
            worst([path.stem for path in paths], cell)
            if not np.isnan(nucleus).any():
                worst([path.stem for path in paths], nucleus)


def table_of_changes(pool, method, options):
    chosen = {name: folder for name, folder in {**MASKS, **FIELDS}.items() if name in options.laboratories}
    print(f"\n{method}: loss of Dice, nucleus and whole cell\n{'':20} " + " ".join(f"{name:>15}" for name in chosen))
    before = {}
    for change in (None, *CHANGES):
        line = f"{change or 'as given':20} "
        for laboratory, folder in chosen.items():
            paths = images_of(DATA / folder / ("JPEGImages" if laboratory == "bccd" else "images"), options.every)
            rows = np.array(list(pool.map(partial(central, method, laboratory, change), paths, chunksize=4)), float)
            now = rows[:, :2].mean(axis=0)
            loss = before.setdefault(laboratory, now) - now
            loss = loss if change else now
            line += f" {loss[0]:7.4f} {loss[1]:7.4f}"
            if change:
                figure(f"masks {method}: loss of Dice, {change}, {laboratory}", loss[1])
        print(line, flush=True)


def table_of_boxes(pool, method, options):
    print(f"\n{Path(method).stem:12} {'white cells':>16}       {'red cells':>16}")
    print(f"{'':12} {'recall':>6} {'precision':>9}       {'recall':>6} {'precision':>9}")
    for laboratory, folder in BOXES.items():
        if laboratory not in options.laboratories:
            continue
        place = DATA / folder / ("JPEGImages" if laboratory == "bccd" else "images")
        paths = images_of(place, options.every)
        rows = np.array(list(pool.map(partial(boxed, method, laboratory), paths, chunksize=4)))
        hits, true, found, red_hits, red_true, red_found = rows.sum(axis=0)
        figures = hits / true, hits / max(found, 1), red_hits / red_true, red_hits / max(red_found, 1)
        print(f"{laboratory:12} {figures[0]:6.3f} {figures[1]:9.3f}       {figures[2]:6.3f} {figures[3]:9.3f}")
        names = ("white recall", "white precision", "red recall", "red precision")
        for name, value in zip(names, figures, strict=True):
            figure(f"masks {method}: {name}, {laboratory}", value)
        if options.worst:
            worst([path.stem for path in paths], -(rows[:, 1] + rows[:, 2] - 2 * rows[:, 0]).astype(float))


def table_of_shapes(pool, method, options):
    paths = [p for folder in ("pbc", "pbc-more") for p in images_of(DATA / folder, options.every)]
    found = list(pool.map(partial(shaped, method), paths, chunksize=8))
    by_class = defaultdict(list)
    for path, row in zip(paths, found, strict=True):
        by_class[re.match("[A-Z]+", path.name).group()].append((path.stem, row))
    print(f"\n{method}: PBC        shaped   one piece   no white cell   of")
    for name, rows in by_class.items():
        solid, fraction = SHAPES.get(name, (0.0, 0.0))
        good = [row is not None and row[0] == 1 and row[1] >= solid and row[2] >= fraction for _, row in rows]
        one = np.mean([row is not None and row[0] == 1 for _, row in rows])
        none = np.mean([row is None for _, row in rows])
        print(f"  {name:12} {np.mean(good) if name in SHAPES else np.nan:10.1%} {one:10.1%} {none:12.1%} {len(rows):8}")
        if name in SHAPES:
            figure(f"masks {method}: shaped nuclei, {name}", np.mean(good))
            if options.worst:
                print("    not: " + ", ".join(stem for (stem, _), ok in zip(rows, good, strict=True) if not ok)[:400])
        figure(f"masks {method}: without a white cell, {name}", none)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="unet,stain")
    parser.add_argument("--laboratories", default=",".join([*MASKS, *FIELDS, *BOXES, "pbc"]))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--changed", action="store_true")
    parser.add_argument("--worst", action="store_true")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.laboratories = options.laboratories.split(",")
    if not DATA.is_dir():
        sys.exit(f"{DATA}: not there; set WBCTOOL_TEST_DATA")
    with ProcessPoolExecutor(options.processes) as pool:
        for method in options.methods.split(","):
            if options.changed:
                table_of_changes(pool, method, options)
                continue
            table_of_masks(pool, method, options)
            table_of_boxes(pool, method, options)
            if "pbc" in options.laboratories:
                table_of_shapes(pool, method, options)


if __name__ == "__main__":
    main()
