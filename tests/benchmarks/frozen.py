"""The frozen phase with features computed once, against computing them again in each epoch.

    python tests/benchmarks/frozen.py

mobilenetv2_100 with the given weights, 11 PBC classes at 224, 50/10/40, 5 epochs, no augmentation, one view
(`--set frozen_views=1`) against none kept (0). Time is that of the phase without start-up and
decoding; accuracy is on test.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import figure
from plain_timm import DATA, PBC, WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.epochs)
        return
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        split = f"{folder}/split.jsonl"
        with open(split, "w") as stream:
            words = ["split", str(DATA / "pbc"), "--ratio", "50/10/40", "-q", "--label-regex", PBC]
            subprocess.run([sys.executable, "-m", "wbctool", *words], check=True, stdout=stream)
        for attention in ("none", "cbam"):
            for views in ("0", "1"):
                again = [sys.executable, __file__, "--epochs", str(options.epochs), "--child", split, attention, views]
                made = subprocess.run(again, check=True, capture_output=True, text=True)
                rows[views] = json.loads(made.stdout.splitlines()[-1])
            (slow, one), (fast, two) = rows["0"], rows["1"]
            print(
                f"attention {attention}: computed again {slow:.1f} s, kept {fast:.1f} s, {slow / fast:.1f} x; "
                f"accuracy {one:.4f} and {two:.4f}",
                flush=True,
            )
            figure(f"frozen phase, attention {attention}: times as fast", slow / fast)
            figure(f"frozen phase, attention {attention}: accuracy lost", one - two)


def child(split: str, attention: str, views: str, epochs: int) -> None:
    """One training; prints the seconds of its phase and its test accuracy."""
    from wbctool.cli import _run
    from wbctool.training.loop import Trainer

    spent = []
    run_phase = Trainer._run_phase

    def timed(self, *arguments):
        start = time.perf_counter()
        run_phase(self, *arguments)
        spent.append(time.perf_counter() - start)

    Trainer._run_phase = timed
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["train", split, "-o", str(out), "-q", "--epochs", str(epochs), "--frozen-epochs", str(epochs)]
        words += ["--backbone", "mobilenetv2_100", "--backbone-arg", "pad_type=same", "--weights", str(WEIGHTS)]
        words += ["--mean", "0.5", "--std", "0.5", "--augment", "none", "--attention", attention, "--patience", "0"]
        code = _run([*words, "--set", f"frozen_views={views}", "--device", "cpu"], False)
        assert code == 0
        rows = [json.loads(line) for line in open(out / "predictions.jsonl")]
    test = [row["predicted"] == row["label"] for row in rows if row["split"] == "test"]
    print(json.dumps([sum(spent), sum(test) / len(test)]))


if __name__ == "__main__":
    main()
