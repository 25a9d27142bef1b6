"""Memory of a long `wbctool segment` or `explain`: the peak over the first half of the images, and over the second.

    python tests/benchmarks/memory.py [--images 100000] [--jobs 2]
    python tests/benchmarks/memory.py --explain --images 10000

`explain` is of an untrained run, with its panels. The images are links to drawn fields, so that no data is needed.
Linux only: /proc is read.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import figure

from wbctool.drawing import write_set


def resident(process: int) -> float:
    """Megabytes of a process and its children."""
    total, waiting = 0, [process]
    while waiting:
        number = waiting.pop()
        try:
            status = Path(f"/proc/{number}/status").read_text()
            total += int(status.split("VmRSS:")[1].split()[0])
            waiting += map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split())
        except (OSError, IndexError):
            continue
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--explain", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        write_set(Path(place, "drawn"), per_class=6, size=96)
        fields = sorted(Path(place, "drawn", "images").rglob("*.jpg"))
        folder = Path(place, "in")
        folder.mkdir()
        for number in range(options.images):
            (folder / f"{number:06}.jpg").symlink_to(fields[number % len(fields)])
        command = [sys.executable, "-m", "wbctool", "segment", "--jobs", str(options.jobs)]
        if options.explain:
            run = str(Path(place, "run"))
            words = ["train", str(Path(place, "drawn", "images")), "-o", run, "--backbone", "resnet10t", "--quiet"]
            words += ["--weights", "none", "--size", "64", "--epochs", "0", "--set", "symmetries=1"]
            subprocess.run([sys.executable, "-m", "wbctool", *words], check=True, capture_output=True)
            command = [sys.executable, "-m", "wbctool", "explain", run]
        command += [str(folder), "-o", str(Path(place, "out")), "--quiet"]
        start, peaks, count = time.monotonic(), [0.0, 0.0], 0
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            for _ in running.stdout:
                count += 1
                if count > 200 and count % 50 == 0:  # when all workers have started
                    half = count > options.images // 2
                    peaks[half] = max(peaks[half], resident(running.pid))
        spent = time.monotonic() - start
        figure(f"memory of {'explain' if options.explain else 'segment'}: second half over first", peaks[1] / peaks[0])
        print(
            f"{count:,} images in {spent:.0f} s; peak of the first half {peaks[0]:.0f} MB, of the second {peaks[1]:.0f}"
        )


if __name__ == "__main__":
    main()
