"""How well the folder steps use further cores: seconds with one process over those with N, a core.

    python tests/benchmarks/scaling.py [--jobs 2] [--images 1000] [--rounds 3]

Whole commands on PBC fields, the start of all processes counted, with one process and with N in turn; medians of the
rounds. Last what the machine itself has to give: N commands side by side, each with one process and a shard.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import figure

DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
LABEL = "^(?P<label>BA|BNE|EO|ERB|LY|MMY|MO|MY|PLATELET|PMY|SNE)_"


def seconds(*words: object, shards: int = 1, into: Path | None = None) -> float:
    """Of a command, or of its shards side by side."""
    start = time.monotonic()
    with open(into or os.devnull, "wb") as stream:
        command = [sys.executable, "-m", "wbctool", *map(str, words), "-q"]
        parts = [["--shard", f"{number}/{shards}"] for number in range(1, shards + 1)] if shards > 1 else [[]]
        running = [subprocess.Popen([*command, *part], stdout=stream) for part in parts]
        assert [process.wait() for process in running] == [0] * shards
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA}: not there; set WBCTOOL_TEST_DATA")
    found = sorted(file for file in (DATA / "pbc").glob("*/*.jpg") if not file.name.startswith("."))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "in").mkdir()
        for file in found[: options.images]:
            (place / "in" / file.name).symlink_to(file)
        seconds("segment", place / "in", "-o", place / "masks", "--label-regex", LABEL)
        seconds("split", place / "masks", "--ratio", "100/0/0", into=place / "split.jsonl")
        seconds("naturalize", place / "split.jsonl", "-o", place / "first", "--add", 1, "--pool", place / "pool")
        steps = {
            "segment": (place / "in",),
            "enhance": (place / "in", "--clahe", "--reinhard", found[0]),
            "crop": (place / "split.jsonl", "--which", "all", "--kind", "any"),  # some 10 a field
            "naturalize": (place / "split.jsonl", "--add", 300, "--pool", place / "pool"),
        }
        print(f"{len(found[: options.images])} PBC fields; seconds with 1 and with {options.jobs} processes")
        for name, words in steps.items():
            spent: dict[tuple[int, int], list[float]] = {(1, 1): [], (options.jobs, 1): [], (1, options.jobs): []}
            for number in range(options.rounds):
                for (jobs, shards), times in spent.items():
                    out = place / f"{name}-{jobs}-{shards}-{number}"
                    times.append(seconds(name, *words, "-o", out, "--jobs", jobs, shards=shards))
            one, many, apart = (statistics.median(times) for times in spent.values())
            share, most = one / many / options.jobs, one / apart / options.jobs
            print(f"{name:12} {one:7.1f} {many:7.1f}   {share:.2f} of each core; side by side {most:.2f}", flush=True)
            figure(f"scaling of {name}: share of each of {options.jobs} cores", share)
            figure(f"scaling of {name}: of what {options.jobs} commands side by side do", share / most)


if __name__ == "__main__":
    main()
