"""The eight configurations of the attentive-CNN paper on PBC images made imbalanced, and its table.

    python tests/benchmarks/eight.py

The 11 classes are thinned to 120 down to 11 images (a geometric row, in alphabetical order), split 80/20,
and trained by `examples/eight-configurations.sh` with mobilenetv2_100 at 96 pixels and the given weights.
Further flags go to `train`.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from plain_timm import DATA, PBC, WEIGHTS

EXAMPLE = Path(__file__).parents[2] / "examples" / "eight-configurations.sh"


def main() -> None:
    command = [sys.executable, "-m", "wbctool"]
    with tempfile.TemporaryDirectory() as folder:
        words = ["split", str(DATA / "pbc"), "--label-regex", PBC, "-q"]
        made = subprocess.run([*command, *words], check=True, capture_output=True, text=True).stdout
        records = [json.loads(line) for line in made.splitlines()]
        classes = sorted({record["label"] for record in records if record.get("label")})
        thin = f"{folder}/thin.jsonl"
        with open(thin, "w") as stream:
            for number, name in enumerate(classes):
                count = round(120 * (11 / 120) ** (number / (len(classes) - 1)))
                own = [record for record in records if record.get("label") == name][:count]
                print(name, len(own), end="  ", flush=True)
                stream.writelines(json.dumps({k: v for k, v in r.items() if k != "split"}) + "\n" for r in own)
        print(flush=True)
        with open(f"{folder}/split.jsonl", "w") as stream:
            subprocess.run([*command, "split", thin, "--ratio", "80/20", "-q"], check=True, stdout=stream)
        os.makedirs(f"{folder}/bin")
        Path(f"{folder}/bin/wbctool").write_text(f'#!/bin/sh\nexec {sys.executable} -m wbctool "$@"\n')
        os.chmod(f"{folder}/bin/wbctool", 0o755)
        words = ["split.jsonl", "runs", "mobilenetv2_100", "--weights", str(WEIGHTS), "--size", "96"]
        words += ["--backbone-arg", "pad_type=same", "--mean", "0.5", "--std", "0.5", "-q", *sys.argv[1:]]
        path = f"{folder}/bin:{os.environ['PATH']}"
        subprocess.run([str(EXAMPLE), *words], check=True, cwd=folder, env={**os.environ, "PATH": path})


if __name__ == "__main__":
    main()
