"""Fused runs beside their networks: macro F1 on the 11 PBC classes, and the time that features take.

    python tests/benchmarks/fuse.py [--seeds 0,1,2] [--epochs 12] [--work DIR] [--only table,speed]

For each seed: a stratified split 60/15/25 of 1,320 images, two networks trained on it (mobilenetv2_100 with the
ImageNet weights at hand, plain and with CBAM, recipe `best`), and fused runs of them. All figures are of test
images, by which nothing was chosen. `--work` keeps all files; a second call resumes there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from figures import figure

from wbctool.device import autocast, images_at_once
from wbctool.modeling.architecture import Architecture
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.predictor import deep_features

DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
REGEX = "^(?P<label>BA|BNE|EO|ERB|LY|MMY|MO|MY|PLATELET|PMY|SNE)_"
WEIGHTS = DATA / "weights" / "mobilenetv2_100.tf_in1k.safetensors"
NETWORK = f"--weights {WEIGHTS} --backbone mobilenetv2_100 --backbone-arg pad_type=same --mean 0.5 --std 0.5 --size 224"
BACKBONES = ("resnet50", "densenet121", "tf_efficientnetv2_b0", "mobilenetv3_small_100", "mobilenetv2_100")
FUSED = {
    "XGBoost on deep features": ("{plain} {cbam}", "--start none"),
    "XGBoost on morphology": ("", "--morphology"),
    "XGBoost on both": ("{plain} {cbam}", "--start none --morphology"),
    "runs corrected by trees, plain alone": ("{plain}", "--morphology"),
    "runs corrected by trees, both runs": ("{plain} {cbam}", "--morphology"),
}


def call(line: str, out: Path | None = None) -> str:
    """Run `wbctool` and return what it printed."""
    words = [sys.executable, "-m", "wbctool", *line.split()]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if done.returncode:
        sys.exit(f"wbctool {line}\n{done.stderr}")
    if out:
        out.write_text(done.stdout)
    return done.stdout


def figures(work: Path, seeds: list[int], epochs: int) -> None:
    """Print the table of macro F1."""
    cells = work / "cells"
    masks = call(f"segment {DATA / 'pbc'} -o {work / 'masks'} --label-regex {REGEX} -q", work / "masks.jsonl")
    assert masks
    call(f"crop {work / 'masks.jsonl'} -o {cells} --label-regex {REGEX} -q")
    scores: dict[str, list[float]] = {}
    for seed in seeds:
        split = work / f"split-{seed}.jsonl"
        records = call(f"split {cells} --ratio 60/15/25 --seed {seed} -q", split).splitlines()
        tested = work / f"test-{seed}.jsonl"
        tested.write_text("".join(f"{line}\n" for line in records if json.loads(line).get("split") == "test"))
        runs = {name: work / f"{name}-{seed}" for name in ("plain", "cbam")}
        for name, run in runs.items():
            more = "--attention cbam" if name == "cbam" else ""
            call(f"train {split} -o {run} {NETWORK} --epochs {epochs} --seed {seed} {more} -q")
            scores.setdefault(f"network alone, {name}", []).append(macro_f1(run))
        both = work / f"mean-{seed}.jsonl"
        call(f"predict {runs['plain']} {runs['cbam']} {tested} -q", both)
        scores.setdefault("mean of both networks", []).append(macro_f1(both))
        for number, (title, (fused_runs, options)) in enumerate(FUSED.items()):
            out = work / f"fused-{number}-{seed}"
            start = time.perf_counter()
            names = fused_runs.format(**runs)
            call(f"xgboost-fuse {names} {split} -o {out} {options} --features {work / 'features'} --seed {seed} -q")
            seconds = time.perf_counter() - start
            info = json.loads((out / "run.json").read_text())
            kept = "+".join(json.loads((out / "model.json").read_text())["parts"])
            print(f"seed {seed}: {title}: {info['rounds']} rounds on {kept}, {seconds:.0f} s", file=sys.stderr)
            scores.setdefault(title, []).append(macro_f1(out))
    print(f"\nmacro F1, test\n{'':40}" + "".join(f"{f'seed {seed}':>9}" for seed in seeds) + f"{'mean':>9}")
    for title, row in scores.items():
        figure(f"fused: macro F1 of {title}", float(np.mean(row)))
        print(f"{title:40}" + "".join(f"{value:9.4f}" for value in (*row, float(np.mean(row)))))
    for seed, last in zip(seeds, scores["runs corrected by trees, both runs"], strict=True):
        rows = zip(*(scores[f"network alone, {name}"] for name in ("plain", "cbam")), strict=True)
        best = max(list(rows)[seeds.index(seed)])
        figure(f"fused: macro F1 less the best run's, seed {seed}", last - best)


def macro_f1(predictions: Path) -> float:
    return json.loads(call(f"evaluate {predictions} --json -q"))["macro_f1"]


def speed(rounds: int) -> None:
    """Print the speed of features and of the network's forward pass alone, on tensors in memory; turn by turn."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randint(0, 256, (64, 3, 224, 224), dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    print(f"\nfeatures on ready tensors, images/s, {device.type} (≥ 0.95 of the forward pass)")
    for precision in ("float32", "bf16"):
        for backbone in BACKBONES:
            torch.manual_seed(0)
            model = Classifier(Architecture(backbone, tuple("abcdefghijk"), 224))
            model = model.to(device, memory_format=torch.channels_last).eval()

            def forward(model=model, precision=precision) -> None:
                with torch.inference_mode(), autocast(device, precision):
                    for part in images.split(images_at_once(device)):
                        model(part).cpu()

            seconds: dict[str, list[float]] = {"forward": [], "features": []}
            for turn in range(rounds + 1):
                for name, compute in (
                    ("forward", forward),
                    ("features", partial(deep_features, model, images, precision)),
                ):
                    start = time.perf_counter()
                    compute()
                    if turn:
                        seconds[name].append(time.perf_counter() - start)
            speed_of = {name: len(images) / float(np.median(each)) for name, each in seconds.items()}
            ratio = speed_of["features"] / speed_of["forward"]
            figure(f"features {precision}: share of forward speed, {backbone}", ratio)
            print(
                f"{backbone:24} {precision:8} {speed_of['forward']:8.1f} {speed_of['features']:8.1f}  {ratio:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", default="table,speed")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if "speed" in options.only:
        speed(options.rounds)
    if "table" in options.only:
        with tempfile.TemporaryDirectory() as scratch:
            figures(options.work or Path(scratch), [int(seed) for seed in options.seeds.split(",")], options.epochs)
