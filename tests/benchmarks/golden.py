"""Does a change of structure keep the output? Runs one chain of commands with two versions and compares their bytes.

    python tests/benchmarks/golden.py REVISION

The chain runs on drawn smears, with the working tree and with a checkout of REVISION. `run.json`, `seconds` and keys
of stored features (they hold times of files) are left out of the comparison, as they are not the same twice.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY = "--backbone resnet10t --weights none --size 48 --batch-size 8 --device cpu --epochs 2 --frozen-epochs 1"
CHAIN = [
    "segment smears/images -o masks --coco masks.json --overlay",
    *(f"segment smears/images -o masks-{name} --method {name}" for name in ("cyan-otsu", "rgb", "hsv", "lab", "hed")),
    "segment smears/images -o masks-purple --method purple-index --theta 0.2",
    "segment smears/images -o masks-watershed --method watershed --as-published",
    "enhance smears/images -o even --clahe --denoise nlm",
    r"split masks --ratio 1/1/1 --group-regex s(\d+)_ -o split.jsonl",
    r"split masks --folds 3 --fold 2 --near-duplicates -o folds.jsonl",
    "crop split.jsonl -o cells --size 48",
    "crop split.jsonl -o boxes --size 48 --method box --which all --kind any --edge drop",
    "naturalize split.jsonl -o grown --add 2",
    f"train cells -o run {TINY}",
    f"train cells -o cbam {TINY} --attention cbam --loss focal --class-weights balanced",
    "predict run cells -o predictions.jsonl --threshold 0.3",
    "predict run cbam cells -o both.jsonl --tta",
    "predict run smears/images --fields -o fields.jsonl",
    "evaluate predictions.jsonl --json",
    "evaluate predictions.jsonl --audit --trained-on cells --target-error 0.9 --json",
    "evaluate predictions.jsonl",
    "evaluate run cbam --baseline run",
    "evaluate run cbam --json --html page.html --plots plots",
    "evaluate predictions.jsonl --differential",
    "evaluate predictions.jsonl --format latex",
    "explain run cells -o looks --method gradcam --method scorecam --method random --faithfulness --sheet 2 --maps",
    "explain run cells -o compared --compare cbam --method layercam",
    "xgboost-fuse run cells -o fused --morphology --rounds 20",
    "xgboost-fuse run cells -o features --morphology --features-only",
    "predict fused cells -o fused.jsonl",
    "info run",
    "info masks",
]


def main(revision):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        checkout = folder / "checkout"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", checkout, revision], cwd=ROOT, check=True)
        try:
            work = folder / "work"
            made = [run_chain(work, tree, folder / name) for name, tree in (("new", ROOT), ("old", checkout))]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=ROOT, check=True)
        new, old = (contents(each) for each in made)
        differing = sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))
        for name in differing:
            state = "missing" if name not in new else "added" if name not in old else "other bytes"
            print(f"{state:12} {name}")
        print(f"{len(CHAIN)} commands, {len(old):,} files, {len(differing):,} differ")
        return bool(differing)


def run_chain(work, tree, kept):
    """Run all commands with the package in `tree`, always in the folder `work`; the folder it is moved to."""
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    script = "from pathlib import Path; from wbctool.drawing import write_set; "
    script += "write_set(Path('smears'), per_class=6, slides=3, size=160)"
    command = [sys.executable, "-c", script]
    subprocess.run(command, cwd=work, env=environment, check=True)
    for number, line in enumerate(CHAIN):
        done = subprocess.run(
            [sys.executable, "-m", "wbctool", *line.split()], cwd=work, env=environment, capture_output=True, text=True
        )
        print(f"{tree.name}: {line} → {done.returncode}", file=sys.stderr, flush=True)
        (work / f"stdout-{number:02}.txt").write_text(f"{line}\n{done.stdout}\nexit code {done.returncode}\n")
        if done.returncode:
            print(done.stderr, file=sys.stderr)
    return work.rename(kept)


def contents(folder):
    """What each file holds, by its path."""
    contents = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "run.json" and path.suffix != ".keys":
            contents[str(path.relative_to(folder))] = without_seconds(path)
    return contents


def without_seconds(path):
    """The bytes of a file; of records without their `seconds`."""
    raw = path.read_bytes()
    if path.suffix not in (".jsonl", ".txt"):
        return raw
    return b"\n".join(_line(line) for line in raw.splitlines())


def _line(line):
    try:
        record = json.loads(line)
        return json.dumps({key: value for key, value in record.items() if key != "seconds"}).encode()
    except (ValueError, AttributeError):
        return line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
