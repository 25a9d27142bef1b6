"""`wbctool train --recipe best` against forty plain lines of timm: same images, split, weights, time.

    python tests/benchmarks/plain_timm.py --epochs 25 --seeds 3

Whole fields of the 11 PBC classes, scaled to 224, split 50/10/40. The plain lines are `plain()` below;
they know nothing of validation. Prints test accuracy and wall time of both, process start and decoding
included, run one after the other on each seed, and the interval of the difference by a paired bootstrap
over images (10,000 samples; an image counts with all seeds that test it). `--ours-epochs` sets another
number of epochs for wbctool, so that its time is no longer than theirs; further flags go to `train`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import figure

HERE = Path(__file__).resolve()
DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", HERE.parents[3] / "shared" / "data"))
PBC = "^(?P<label>BA|BNE|EO|ERB|LY|MMY|MO|MY|PLATELET|PMY|SNE)_"
WEIGHTS = DATA / "weights" / "mobilenetv2_100.tf_in1k.safetensors"


def plain(split_file: str, epochs: int, seed: int) -> dict[str, bool]:
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    records = [json.loads(line) for line in open(split_file)]
    records = [r for r in records if r.get("label")]
    classes = sorted({r["label"] for r in records})
    to_tensor = [v2.ToImage(), v2.Resize((224, 224), antialias=True)]
    normalise = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    turns = v2.RandomChoice([v2.RandomRotation((a, a)) for a in (0, 90, 180, 270)])
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), turns]
    transforms = {"train": v2.Compose(to_tensor + flips + normalise), "test": v2.Compose(to_tensor + normalise)}

    def loader(split):
        chosen = [r for r in records if r["split"] == split]
        items = [(r["path"], classes.index(r["label"]), transforms[split]) for r in chosen]
        return DataLoader(items, 32, shuffle=split == "train", num_workers=2, collate_fn=collate)

    def collate(items):
        images = torch.stack([t(Image.open(path).convert("RGB")) for path, _, t in items])
        return images.to(memory_format=torch.channels_last), torch.tensor([label for _, label, _ in items])

    torch.manual_seed(seed)
    model = timm.create_model("mobilenetv2_100", num_classes=len(classes), pad_type="same")
    state = {k: v for k, v in load_file(WEIGHTS).items() if not k.startswith("classifier")}
    model.load_state_dict(state, strict=False)
    model.to(memory_format=torch.channels_last)
    train = loader("train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=epochs * len(train))
    for _ in range(epochs):
        for images, labels in train:
            with torch.autocast("cpu", torch.bfloat16):
                loss = cross_entropy(model(images).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    right = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for images, labels in loader("test"):
            right += (model(images).argmax(1) == labels).tolist()
    return dict(zip([r["id"] for r in records if r["split"] == "test"], right, strict=True))


def wbctool(split_file: str, epochs: int, seed: int, out: str, extra: list[str]) -> dict[str, bool]:
    command = [sys.executable, "-m", "wbctool", "train", split_file, "-o", out, "--recipe", "best"]
    options = ["--backbone", "mobilenetv2_100", "--backbone-arg", "pad_type=same", "--weights", str(WEIGHTS)]
    options += ["--mean", "0.5", "--std", "0.5", "--device", "cpu", "--epochs", str(epochs), "--seed", str(seed)]
    subprocess.run([*command, *options, *extra], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = [json.loads(line) for line in open(f"{out}/predictions.jsonl")]
    return {row["id"]: row["predicted"] == row["label"] for row in rows if row["split"] == "test"}


def accuracy(right: dict[str, bool]) -> float:
    return sum(right.values()) / len(right)


def interval(pairs: list[tuple[dict[str, bool], dict[str, bool]]], samples: int = 10_000) -> tuple[float, float]:
    """95 % interval of our accuracy less theirs."""
    import numpy as np

    names = sorted({name for theirs, _ in pairs for name in theirs})
    gain = np.array([sum(int(ours[n]) - int(theirs[n]) for theirs, ours in pairs if n in theirs) for n in names])
    times = np.array([sum(n in theirs for theirs, _ in pairs) for n in names])
    drawn = np.random.default_rng(0).integers(0, len(names), (samples, len(names)))
    low, high = np.percentile(gain[drawn].sum(1) / times[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--ours-epochs", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plain", nargs=2, metavar=("SPLIT", "SEED"), help=argparse.SUPPRESS)
    arguments, extra = parser.parse_known_args()
    if arguments.plain:
        print(json.dumps(plain(arguments.plain[0], arguments.epochs, int(arguments.plain[1]))))
        return
    if not WEIGHTS.exists():
        sys.exit(f"{WEIGHTS}: not there; set WBCTOOL_TEST_DATA")
    pairs, times = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            split_file = f"{folder}/split-{seed}.jsonl"
            split = ["split", str(DATA / "pbc"), "--ratio", "50/10/40", "--seed", str(seed), "-q"]
            with open(split_file, "w") as stream:
                command = [sys.executable, "-m", "wbctool", *split, "--label-regex", PBC]
                subprocess.run(command, check=True, stdout=stream)
            start = time.perf_counter()
            again = [sys.executable, str(HERE), "--epochs", str(arguments.epochs), "--plain", split_file, str(seed)]
            theirs = json.loads(subprocess.run(again, check=True, capture_output=True, text=True).stdout)
            middle = time.perf_counter()
            epochs = arguments.ours_epochs or arguments.epochs
            ours = wbctool(split_file, epochs, seed, f"{folder}/run-{seed}", extra)
            pairs.append((theirs, ours))
            times.append((middle - start, time.perf_counter() - middle))
            print(
                f"seed {seed}: plain {accuracy(theirs):.4f} in {times[-1][0]:.0f} s, "
                f"wbctool {accuracy(ours):.4f} in {times[-1][1]:.0f} s",
                flush=True,
            )
    plain_mean, our_mean = (sum(accuracy(pair[who]) for pair in pairs) / len(pairs) for who in (0, 1))
    low, high = interval(pairs)
    print(f"mean of {len(pairs)} seeds: plain {plain_mean:.4f} ({arguments.epochs} epochs), wbctool {our_mean:.4f}")
    print(
        f"difference {100 * (our_mean - plain_mean):+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}"
    )
    figure("best against plain timm: points more", 100 * (our_mean - plain_mean))
    figure("best against plain timm: low end of the interval", 100 * low)
    figure("best against plain timm: time", sum(t[1] for t in times) / sum(t[0] for t in times))
    print(f"wall time ratio wbctool/plain {sum(t[1] for t in times) / sum(t[0] for t in times):.2f}")


if __name__ == "__main__":
    main()
