"""Memory of a long `wbctool segment`: the peak over the first half of the images, and over the second.

    python tests/benchmarks/memory.py [--images 100000] [--jobs 2]

The images are links to drawn fields, so that no data is needed. Linux only: /proc is read.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        write_set(Path(place, "drawn"), per_class=6, size=96)
        fields = sorted(Path(place, "drawn", "images").rglob("*.jpg"))
        folder = Path(place, "in")
        folder.mkdir()
        for number in range(options.images):
            (folder / f"{number:06}.jpg").symlink_to(fields[number % len(fields)])
        words = [sys.executable, "-m", "wbctool", "segment", str(folder), "-o", str(Path(place, "out"))]
        command = [*words, "--jobs", str(options.jobs), "--quiet"]
        start, peaks, count = time.monotonic(), [0.0, 0.0], 0
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            for _ in running.stdout:
                count += 1
                if count > 200 and count % 50 == 0:  # when all workers have started
                    half = count > options.images // 2
                    peaks[half] = max(peaks[half], resident(running.pid))
        spent = time.monotonic() - start
        print(
            f"{count:,} images in {spent:.0f} s; peak of the first half {peaks[0]:.0f} MB, of the second {peaks[1]:.0f}"
        )


if __name__ == "__main__":
    main()
