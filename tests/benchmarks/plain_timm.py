"""`wbctool train` against forty plain lines of timm: same images, split, weights, epochs.

    python tests/benchmarks/plain_timm.py --epochs 30 --seeds 3

Whole fields of the 11 PBC classes, scaled to 224, split 50/10/40. The plain lines are `plain()` below;
they know nothing of validation. Prints test accuracy and wall time of
both, process start included, run one after the other on each seed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", HERE.parents[3] / "shared" / "data"))
PBC = "^(?P<label>BA|BNE|EO|ERB|LY|MMY|MO|MY|PLATELET|PMY|SNE)_"
WEIGHTS = DATA / "weights" / "mobilenetv2_100.tf_in1k.safetensors"


def plain(split_file: str, epochs: int, seed: int) -> float:
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
    right = total = 0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for images, labels in loader("test"):
            right += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def wbctool(split_file: str, epochs: int, seed: int, out: str, extra: list[str]) -> float:
    command = [sys.executable, "-m", "wbctool"]
    options = ["--backbone", "mobilenetv2_100", "--backbone-arg", "pad_type=same", "--weights", str(WEIGHTS)]
    options += ["--mean", "0.5", "--std", "0.5", "--device", "cpu", "--epochs", str(epochs), "--seed", str(seed)]
    subprocess.run([*command, "train", split_file, "-o", out, *options, *extra], check=True, stdout=subprocess.DEVNULL)
    report = subprocess.run([*command, "evaluate", out, "--json"], check=True, capture_output=True, text=True)
    return json.loads(report.stdout)["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plain", nargs=2, metavar=("SPLIT", "SEED"), help=argparse.SUPPRESS)
    arguments, extra = parser.parse_known_args()
    if arguments.plain:
        print(plain(arguments.plain[0], arguments.epochs, int(arguments.plain[1])))
        return
    if not WEIGHTS.exists():
        sys.exit(f"{WEIGHTS}: not there; set WBCTOOL_TEST_DATA")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            split_file = f"{folder}/split-{seed}.jsonl"
            split = ["split", str(DATA / "pbc"), "--ratio", "50/10/40", "--seed", str(seed), "-q"]
            with open(split_file, "w") as stream:
                command = [sys.executable, "-m", "wbctool", *split, "--label-regex", PBC]
                subprocess.run(command, check=True, stdout=stream)
            start = time.perf_counter()
            again = [sys.executable, str(HERE), "--epochs", str(arguments.epochs), "--plain", split_file, str(seed)]
            theirs = float(subprocess.run(again, check=True, capture_output=True, text=True).stdout)
            middle = time.perf_counter()
            ours = wbctool(split_file, arguments.epochs, seed, f"{folder}/run-{seed}", extra)
            rows.append((theirs, middle - start, ours, time.perf_counter() - middle))
            times = rows[-1][1::2]
            print(
                f"seed {seed}: plain {theirs:.4f} in {times[0]:.0f} s, wbctool {ours:.4f} in {times[1]:.0f} s",
                flush=True,
            )
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    print(f"mean of {len(rows)} seeds, {arguments.epochs} epochs: plain {mean[0]:.4f}, wbctool {mean[2]:.4f}")
    print(f"difference {100 * (mean[2] - mean[0]):+.2f} points; wall time ratio wbctool/plain {mean[3] / mean[1]:.2f}")


if __name__ == "__main__":
    main()
