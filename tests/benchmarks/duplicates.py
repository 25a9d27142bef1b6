"""Near-duplicates: how long the search takes among many hashes, and what it finds of those that are near.

    python tests/benchmarks/duplicates.py [--hashes 200000] [--images FOLDER]

Hashes are made like those of real fields where there are any: two of them mixed bit by bit and 15 % of the bits
changed, so that their bits depend on one another as real ones do; every tenth is a near copy of another. With
--images, the whole search over the images of a folder, and how many families it leaves.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from figures import figure

from wbctool.imaging.duplicates import find_duplicates
from wbctool.imaging.files import read_image
from wbctool.imaging.perceptual_hash import WITHIN, near_pairs, perceptual_hash

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "pbc"


def made(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (count, 4), and of the first tenth the one that each is a copy of."""
    rng = np.random.default_rng(seed)
    paths = sorted(DATA.glob("*/*.jpg"))[::4]
    real = [perceptual_hash(read_image(path))[:1] for path in paths] or [rng.integers(0, 2**63, (300, 4), np.uint64)]
    bits = np.unpackbits(np.concatenate(real).view(np.uint8), axis=1)
    one, other = rng.integers(0, len(bits), (2, count))
    mixed = np.where(rng.random((count, 256)) < 0.5, bits[one], bits[other]) ^ (rng.random((count, 256)) < 0.15)
    copies = count // 10
    of = rng.integers(copies, count, copies)
    mixed[:copies] = mixed[of] ^ (rng.random((copies, 256)) < 0.02)
    return np.packbits(mixed, axis=1).view(np.uint64), of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hashes", type=int, default=200_000)
    parser.add_argument("--images", type=Path)
    given = parser.parse_args()
    hashes, of = made(given.hashes)
    start = time.perf_counter()
    pairs = near_pairs(hashes)
    seconds = time.perf_counter() - start
    near = np.bitwise_count(hashes[: len(of)] ^ hashes[of]).sum(axis=1) <= WITHIN
    found = {tuple(pair) for pair in pairs.tolist()}
    met = sum((min(i, j), max(i, j)) in found for i, j in enumerate(of.tolist()) if near[i])
    figure("near-duplicates among 200,000: seconds", seconds * 200_000 / given.hashes)
    print(f"{given.hashes:,} hashes: {seconds:.1f} s, {len(pairs):,} pairs, {met / near.sum():.4f} of the near copies")
    if given.images:
        paths = sorted(
            str(path) for path in given.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
        )
        start = time.perf_counter()
        whole = find_duplicates(paths)
        seconds = time.perf_counter() - start
        families = len(np.unique(whole.families))
        print(f"{len(paths):,} images: {seconds:.1f} s, {len(whole.pairs):,} pairs, {families:,} families")


if __name__ == "__main__":
    main()
