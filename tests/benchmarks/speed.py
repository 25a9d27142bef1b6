"""Speed of `wbctool segment` against OpenCV decoding the same files and encoding them as PNG.

    python tests/benchmarks/speed.py [--images 300] [--methods stain,cyan-otsu] [--jobs 1,2]

Both are measured in one process in turn, so that the ratio holds on a noisy machine; start-up is not
counted. With several --jobs the images a second of each, and how well they scale.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import cv2
from figures import figure

from wbctool.pipeline.step import Execution
from wbctool.segmentation import METHODS, segment_images

DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def plain(files: list[Path], out: Path) -> float:
    """Seconds OpenCV takes to decode and encode files."""
    start = time.perf_counter()
    for index, file in enumerate(files):
        cv2.imwrite(str(out / f"{index}.png"), cv2.imread(str(file)))
    return time.perf_counter() - start


def segmented(folder: Path, out: Path, method: str, jobs: int) -> float:
    """Seconds of the whole step, from the folder to masks and records."""
    start = time.perf_counter()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        segment_images([str(folder)], out, method, execution=Execution(jobs=jobs, quiet=True, json_=True))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--methods", default=",".join(name for name in METHODS.names() if name != "sam"))
    parser.add_argument("--jobs", default="1")
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA}: not there; set WBCTOOL_TEST_DATA")
    found = sorted(file for file in (DATA / "pbc").glob("*/*.jpg") if not file.name.startswith("."))
    files = found[:: max(1, len(found) // options.images)][: options.images]
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder, "in"), Path(folder, "out")
        given.mkdir()
        out.mkdir()
        for file in files:
            (given / file.name).symlink_to(file)
        print(f"{len(files)} PBC images; milliseconds an image, and times the plain way")
        for method in options.methods.split(","):
            segmented(given, out / f"{method}-warm", method, 1)
            line, alone = f"{method:14}", 0.0
            for jobs in map(int, options.jobs.split(",")):
                before = plain(files, out)
                spent = segmented(given, out / f"{method}-{jobs}", method, jobs)
                usual = (before + plain(files, out)) / 2
                alone = alone or spent * jobs
                line += f"  jobs {jobs}: {1000 * spent / len(files):6.2f} ms, {spent / usual:5.2f} x"
                if jobs > 1:
                    line += f", {alone / spent / jobs:.2f} of each core"
                    figure(f"segment {method}: share of each of {jobs} cores", alone / spent / jobs)
                else:
                    figure(f"segment {method}: times decoding and encoding", spent / usual)
            print(line)


if __name__ == "__main__":
    main()
