"""All figures that this project sets itself, in one table: measured, the goal, met or not, and on what device.

    python tests/benchmarks/table.py [--parts speed,masks] [--long] [--work DIR]

Runs the other benchmarks one after another, so that nothing else disturbs them: give it an idle machine. Without
`--long` only parts of minutes; with it also trainings and long folders, which take hours on two cores. `--work` keeps
each part's figures, so a second call goes on with what is missing, as long as neither the package nor that part's
scripts have changed. On a GPU what runs there is measured there.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", HERE.parents[2] / "shared" / "data"))
BACKBONE = "resnet50" if shutil.which("nvidia-smi") else "mobilenetv2_100"

# Each part: the script and its words; those after the line take hours.
QUICK = {
    "start-up": "startup.py",
    "speed": "speed.py --methods unet,stain,cyan-otsu,purple-index",
    "scaling": "scaling.py",
    "masks": "masks.py --methods unet",
    "changed stains": "masks.py --methods unet --changed",
    "feed": f"feed.py --backbone {BACKBONE}",
    "features": "fuse.py --only speed",
    "maps": "explain.py",
    "duplicates": "duplicates.py",
    "million": "million.py",
    "composites": "composites.py --place {work}/composites",
}
LONG = {
    "coverage": "coverage.py",
    "frozen": "frozen.py",
    "scarce class": "scarce_class.py --place {work}/scarce",
    "plain timm": "plain_timm.py",
    "fused": "fuse.py --only table --work {work}/fused",
    "memory": "memory.py --images 100000",
    "memory of maps": "memory.py --explain --images 10000",
}
# Of a figure whose name begins so: at least, or at most, that; the longest beginning counts.
GOALS = {
    "start-up: wbctool --help": ("<=", 2.0),
    "start-up: completion": ("<=", 2.0),
    "segment unet: times": ("<=", 8.0),
    "segment cyan-otsu: times": ("<=", 3.0),
    "segment purple-index: times": ("<=", 3.0),
    "scaling of segment: share": (">=", 0.8),
    "scaling of enhance: share": (">=", 0.8),
    "scaling of crop: share": (">=", 0.8),
    "scaling of naturalize: share": (">=", 0.8),
    "masks unet: nucleus Dice, set-1": (">=", 0.955),
    "masks unet: nucleus Dice, set-2": (">=", 0.972),
    "masks unet: nucleus under 0.8, set": ("<=", 0.02),
    "masks unet: cell Dice, set-1": (">=", 0.97),
    "masks unet: cell Dice, set-2": (">=", 0.96),
    "masks unet: cell Dice, all-idb2": (">=", 0.96),
    "masks unet: cell Dice, bcisc": (">=", 0.95),
    "masks unet: cell Dice, bccd": (">=", 0.95),
    "masks unet: without a white cell, all-idb2": ("<=", 0.005),
    "masks unet: without a white cell, bcisc": ("<=", 0.0),
    "masks unet: white recall": (">=", 0.97),
    "masks unet: white precision": (">=", 0.97),
    "masks unet: white recall, tiles": (">=", 0.95),
    "masks unet: white precision, tiles": (">=", 0.95),
    "masks unet: red recall, t": (">=", 0.85),
    "masks unet: red precision, t": (">=", 0.92),
    "masks unet: shaped nuclei": (">=", 0.95),
    "masks unet: shaped nuclei, LY": (">=", 0.97),
    "masks unet: loss of Dice": ("<=", 0.01),
    "masks unet: loss of Dice, size": ("<=", 0.02),
    "training mobilenetv2_100: flips": (">=", 0.95),
    "training resnet50: flips": (">=", 0.90),
    "training mobilenetv2_100: times timm": (">=", 1.5),
    "training resnet50: times timm": (">=", 1.5),
    "frozen phase, attention none: times": (">=", 4.0),
    "frozen phase, attention none: accuracy": ("<=", 0.01),
    "best against plain timm: points": (">=", 2.0),
    "best against plain timm: low": (">=", 0.0),
    "best against plain timm: time": ("<=", 1.0),
    "coverage of accuracy: least": (">=", 93.0),
    "coverage of macro_f1: least": (">=", 93.0),
    "coverage of mcc: least": (">=", 93.0),
    "coverage of accuracy: most": ("<=", 97.0),
    "coverage of macro_f1: most": ("<=", 97.0),
    "coverage of mcc: most": ("<=", 97.0),
    "near-duplicates": ("<=", 60.0),
    "evaluate a million: seconds": ("<=", 30.0),
    "evaluate a million: GB": ("<=", 1.5),
    "composites natural: AUC": ("<=", 0.80),
    "composites natural: a second": (">=", 40.0),
    "scarce class": (">=", 0.0),
    "Grad-CAM float32: cost": ("<=", 1.3),
    "Grad-CAM bf16: cost": ("<=", 1.3),
    "Grad-CAM float32: times": (">=", 2.5),
    "Grad-CAM bf16: times": (">=", 5.0),
    "Score-CAM float32: times": (">=", 3.0),
    "Score-CAM bf16: times": (">=", 3.0),
    "Score-CAM float32: 64 channels against exact, resnet50": (">=", 20.0),
    "Score-CAM bf16: 64 channels against exact, resnet50": (">=", 20.0),
    "features": (">=", 0.95),
    "fused: macro F1 less": (">=", 0.0),
    "memory": ("<=", 1.05),
}


def device() -> str:
    import torch

    cores = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    return f"{torch.cuda.get_device_name()} and {cores}" if torch.cuda.is_available() else f"CPU, {cores}"


def commit() -> str:
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE)
    return described.stdout.strip() or "unknown"


def digest(words: str) -> str:
    """Of all that decides a part's figures: the package, the scripts it uses, and its words."""
    known = hashlib.sha256(words.encode())
    script = HERE / words.split()[0]
    imported = re.findall(r"^(?:from|import) (\w+)", script.read_text(), re.MULTILINE)
    own = [HERE / f"{name}.py" for name in imported if (HERE / f"{name}.py").is_file()]
    for path in [*sorted((HERE.parents[1] / "wbctool").rglob("*.py")), *own, script]:
        known.update(path.read_bytes())
    return known.hexdigest()[:10]


def measured(name: str, words: str, work: Path) -> list[dict]:
    """The figures of a part, or those of an earlier call where nothing has changed."""
    file = work / f"{name.replace(' ', '-')}-{digest(words)}.jsonl"
    if not file.exists():
        part = file.with_suffix(".part")
        part.unlink(missing_ok=True)
        start = time.monotonic()
        script, *more = words.format(work=work).split()
        log = work / f"{name.replace(' ', '-')}.txt"
        with open(log, "w") as stream:
            env = {**os.environ, "WBCTOOL_FIGURES": str(part)}
            env.pop("PYTHONDONTWRITEBYTECODE", None)  # where it is set, every process would compile all it imports
            code = subprocess.run(
                [sys.executable, HERE / script, *more], stdout=stream, stderr=stream, env=env
            ).returncode
        print(f"{name}: {time.monotonic() - start:.0f} s" + (f", failed ({log})" if code else ""), file=sys.stderr)
        if code or not part.exists():
            return []
        part.replace(file)
    return [json.loads(line) for line in file.read_text().splitlines()]


def goal_of(name: str) -> tuple[str, float] | None:
    beginnings = [known for known in GOALS if name.startswith(known)]
    return GOALS[max(beginnings, key=len)] if beginnings else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", help="Only these, with commas.")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA}: not there; set WBCTOOL_TEST_DATA")
    parts = {**QUICK, **LONG} if asked.long or asked.parts else QUICK
    chosen = [name.strip() for name in asked.parts.split(",")] if asked.parts else list(parts)
    if unknown := sorted(set(chosen) - set(parts)):
        sys.exit(f"--parts {', '.join(unknown)}: choose from {', '.join(parts)}")
    with tempfile.TemporaryDirectory() as scratch:
        work = (asked.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        rows = {name: measured(name, parts[name], work) for name in chosen}
    print(f"{commit()} on {device()}\n")
    print(f"{'figure':72} {'measured':>9}  {'goal':>9}")
    missed = lacking = 0
    for name, figures in rows.items():
        if not figures:
            print(f"{name:72} {'–':>9}  its benchmark failed")
            lacking += 1
        for one in figures:
            goal = goal_of(one["name"])
            met = goal is None or (one["value"] >= goal[1] if goal[0] == ">=" else one["value"] <= goal[1])
            missed += not met
            wanted = f"{'≥' if goal[0] == '>=' else '≤'} {goal[1]:g}" if goal else ""
            print(f"{one['name'][:72]:72} {one['value']:9.3f}  {wanted:>9}  {'' if met else 'MISSED'}".rstrip())
    print(f"\n{missed} goals missed, {lacking} parts without figures")


if __name__ == "__main__":
    main()
