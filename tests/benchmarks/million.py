"""How long `wbctool evaluate` takes for a million predictions of eight classes, intervals included, and its memory.

python tests/benchmarks/million.py [--predictions 1000000]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import figure

CLASSES = [f"class {letter}" for letter in "abcdefgh"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--predictions", type=int, default=1_000_000)
    count = parser.parse_args().predictions
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "predictions.jsonl")
        with open(file, "w") as stream:
            for begin in range(0, count, 10_000):
                probabilities = rng.dirichlet(np.full(8, 0.3), 10_000).round(6)
                labels = [rng.choice(8, p=row / row.sum()) for row in probabilities[:: len(probabilities) // 100]]
                for number, row in enumerate(probabilities):
                    named = dict(zip(CLASSES, row.tolist(), strict=True))
                    best = max(named, key=named.__getitem__)
                    record = {
                        "schema": "wbctool.prediction/1",
                        "id": f"{begin + number}",
                        "path": f"/x/{begin + number}.jpg",
                    }
                    record |= {"label": CLASSES[labels[number % len(labels)]], "predicted": best}
                    stream.write(json.dumps({**record, "confidence": named[best], "probabilities": named}) + "\n")
        start = time.perf_counter()
        running = subprocess.Popen([sys.executable, "-m", "wbctool", "evaluate", str(file)], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(running.pid, 0)
        seconds = time.perf_counter() - start
    assert status == 0
    peak = used.ru_maxrss / 2**20  # kilobytes, on Linux
    print(f"{count:,} predictions: {seconds:.1f} s, {peak:.2f} GB")
    figure("evaluate a million: seconds", seconds)
    figure("evaluate a million: GB", peak)


if __name__ == "__main__":
    main()
