"""Agreement of each method with experts' masks and boxes, over the images that have them.

    python tests/benchmarks/masks.py [--methods stain,hed] [--fields] [--worst]

Dice of the central cell, nucleus and whole, over `wbc-masks`; the even images, on which constants were
chosen, and the odd ones apart. `--fields` adds white cells on BCCD (boxes at IoU 0.5) and on PBC, whose
classes say where one must be; `--worst` names the ten worst images of each set.
"""

import argparse
import os
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
from figures import figure

from wbctool.imaging.files import read_image
from wbctool.imaging.label_image import to_labels
from wbctool.segmentation import METHODS, find_objects

DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def measure(method: str, folder: Path) -> tuple[list[str], np.ndarray, float]:
    """Names, Dice of nucleus and whole cell (images, 2), and milliseconds an image."""
    names, rows, spent = [], [], 0.0
    for path in sorted((folder / "images").iterdir()):
        image = read_image(path)
        truth = cv2.imread(str(folder / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        start = time.perf_counter()
        labels, cells = to_labels(find_objects(image, method), image.shape[:2])
        spent += time.perf_counter() - start
        white = [cell for cell in cells if cell["kind"] == "wbc"]
        whole = nucleus = np.zeros(truth.shape, bool)
        if white:
            middle = np.array(truth.shape[::-1]) / 2
            own = min(white, key=lambda c: np.hypot(*(np.array(c["centroid"]) - middle)))
            nucleus = labels == own["nucleus"]["value"]
            whole = (labels == own["value"]) | nucleus
        names.append(path.stem)
        rows.append((dice(nucleus, truth > 200), dice(whole, truth > 64)))
    return names, np.array(rows), 1000 * spent / len(rows)


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """IoU of boxes given as left, top, right, bottom."""
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def on_bccd(method: str) -> str:
    hits = boxes = segmented = 0
    for path in sorted((DATA / "bccd" / "JPEGImages").iterdir()):
        image = read_image(path)
        _, cells = to_labels(find_objects(image, method), image.shape[:2])
        free = [(x, y, x + w, y + h) for c in cells if c["kind"] == "wbc" for x, y, w, h in [c["bbox"]]]
        segmented += len(free)
        for entry in ET.parse(DATA / "bccd" / "Annotations" / f"{path.stem}.xml").getroot().iter("object"):
            if entry.findtext("name") != "WBC":
                continue
            boxes += 1
            box = tuple(int(entry.find("bndbox").findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax"))
            best = max(free, key=lambda other: overlap(box, other), default=None)
            if best and overlap(box, best) >= 0.5:
                hits += 1
                free.remove(best)
    figure(f"masks {method}: BCCD recall", hits / boxes)
    figure(f"masks {method}: BCCD precision", hits / max(1, segmented))
    return f"BCCD white cells: recall {hits / boxes:.3f}, precision {hits / max(1, segmented):.3f} of {boxes} boxes"


def on_pbc(method: str) -> str:
    counts = {True: [0, 0], False: [0, 0]}
    for path in sorted((DATA / "pbc").glob("*/*.jpg")):
        if not path.name.startswith("."):
            seen = counts[path.name.startswith("PLATELET")]
            seen[0] += bool(find_objects(read_image(path), method).cells)
            seen[1] += 1
    (white, fields), (wrong, platelets) = counts[False], counts[True]
    figure(f"masks {method}: PBC fields with a white cell", white / fields)
    figure(f"masks {method}: PBC platelets with one", wrong / platelets)
    return f"PBC: a white cell in {white} of {fields} fields of white cells, in {wrong} of {platelets} of platelets"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--methods", default=",".join(name for name in METHODS.names() if name != "sam"))
    parser.add_argument("--fields", action="store_true")
    parser.add_argument("--worst", action="store_true")
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA}: not there; set WBCTOOL_TEST_DATA")
    print(
        f"{'method':12} {'set':>3} {'part':8} {'mean':>6} {'median':>6} {'< 0.8':>6} {'even':>6} {'odd':>6} {'ms':>6}"
    )
    for method in options.methods.split(","):
        for number in (1, 2):
            names, table, spent = measure(method, DATA / "wbc-masks" / f"dataset{number}")
            for part, column in zip(("nucleus", "cell"), table.T, strict=True):
                halves = f"{column[::2].mean():6.3f} {column[1::2].mean():6.3f}"
                figures = f"{column.mean():6.4f} {np.median(column):6.3f} {(column < 0.8).mean():6.1%} {halves}"
                print(f"{method:12} {number:>3} {part:8} {figures} {spent:6.1f}")
                figure(f"masks {method}: {part} Dice, set {number}", column.mean())
                figure(f"masks {method}: {part} under 0.8, set {number}", (column < 0.8).mean())
                if options.worst:
                    worst = sorted(zip(column, names, strict=True))[:10]
                    print("    worst: " + ", ".join(f"{name} {value:.2f}" for value, name in worst))
        if options.fields:
            print(on_bccd(method))
            print(on_pbc(method))


if __name__ == "__main__":
    main()
