"""Agreement of each method with experts' masks.

    python tests/benchmarks/masks.py

Dice of the central cell, nucleus and whole, over `wbc-masks`; the even and the odd images apart.
"""

import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from wbctool.imaging.files import read_image
from wbctool.segmentation import METHODS, find_objects

DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def measure(method: str, folder: Path) -> tuple[np.ndarray, float]:
    """Dice of nucleus and whole cell, shape (images, 2), and milliseconds an image."""
    rows, spent = [], 0.0
    for path in sorted((folder / "images").iterdir()):
        image = read_image(path)
        truth = cv2.imread(str(folder / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        start = time.perf_counter()
        cells = find_objects(image, method).cells
        spent += time.perf_counter() - start
        middle = np.array(truth.shape) / 2
        whole = nucleus = np.zeros(truth.shape, bool)
        if cells:
            whole, nucleus = min(cells, key=lambda c: np.hypot(*(np.argwhere(c[0]).mean(axis=0) - middle)))
        rows.append((dice(nucleus > 0, truth > 200), dice(whole > 0, truth > 64)))
    return np.array(rows), 1000 * spent / len(rows)


def main() -> None:
    if not DATA.is_dir():
        sys.exit(f"{DATA}: not there; set WBCTOOL_TEST_DATA")
    print(
        f"{'method':12} {'set':>3} {'part':8} {'mean':>6} {'median':>6} {'< 0.8':>6} {'even':>6} {'odd':>6} {'ms':>6}"
    )
    for method in METHODS:
        for number in (1, 2):
            scores, spent = measure(method, DATA / "wbc-masks" / f"dataset{number}")
            for part, column in zip(("nucleus", "cell"), scores.T, strict=True):
                halves = f"{column[::2].mean():6.3f} {column[1::2].mean():6.3f}"
                figures = f"{column.mean():6.3f} {np.median(column):6.3f} {(column < 0.8).mean():6.1%} {halves}"
                print(f"{method:12} {number:>3} {part:8} {figures} {spent:6.1f}")


if __name__ == "__main__":
    main()
