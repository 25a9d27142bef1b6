"""Fused runs beside their networks: macro F1 on the 11 PBC classes, and what features cost.

    python tests/benchmarks/fuse.py [--seeds 0,1,2] [--epochs 12] [--work DIR] [--only table,speed]

Of each seed: a stratified split 60/15/25 of 1,320 images, two networks trained on it (mobilenetv2_100 with the
ImageNet weights at hand, plain and with CBAM, recipe `best`), and what is fused of them. All figures are of test
images, which nothing was chosen on. `--work` keeps what was made; a second call goes on from it.
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
from wbctool.modeling.deep_features import deep_features

DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
REGEX = "^(?P<label>BA|BNE|EO|ERB|LY|MMY|MO|MY|PLATELET|PMY|SNE)_"
WEIGHTS = DATA / "weights" / "mobilenetv2_100.tf_in1k.safetensors"
NETWORK = f"--weights {WEIGHTS} --backbone mobilenetv2_100 --backbone-arg pad_type=same --mean 0.5 --std 0.5 --size 224"
BACKBONES = ("resnet50", "densenet121", "tf_efficientnetv2_b0", "mobilenetv3_small_100", "mobilenetv2_100")
FUSED = {
    "XGBoost on deep features": ("{plain} {cbam}", "--start none"),
    "XGBoost on morphology": ("", "--morphology"),
    "XGBoost on both": ("{plain} {cbam}", "--start none --morphology"),
    "runs mended by trees, plain alone": ("{plain}", "--morphology"),
    "runs mended by trees, both runs": ("{plain} {cbam}", "--morphology"),
}


def call(line: str, out: Path | None = None) -> str:
    """Run `wbctool`; what it printed."""
    words = [sys.executable, "-m", "wbctool", *line.split()]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if done.returncode:
        sys.exit(f"wbctool {line}\n{done.stderr}")
    if out:
        out.write_text(done.stdout)
    return done.stdout


def figures(work: Path, seeds: list[int], epochs: int) -> None:
    """The table of macro F1."""
    cells = work / "cells"
    masks = call(f"segment {DATA / 'pbc'} -o {work / 'masks'} --label-regex {REGEX} -q", work / "masks.jsonl")
    assert masks
    call(f"crop {work / 'masks.jsonl'} -o {cells} --label-regex {REGEX} -q")
    found: dict[str, list[float]] = {}
    for seed in seeds:
        split = work / f"split-{seed}.jsonl"
        call(f"split {cells} --ratio 60/15/25 --seed {seed} -q", split)
        runs = {name: work / f"{name}-{seed}" for name in ("plain", "cbam")}
        for name, run in runs.items():
            more = "--attention cbam" if name == "cbam" else ""
            call(f"train {split} -o {run} {NETWORK} --epochs {epochs} --seed {seed} {more} -q")
            found.setdefault(f"network alone, {name}", []).append(macro_f1(run))
        both = work / f"mean-{seed}.jsonl"
        call(f"predict {runs['plain']} {runs['cbam']} {split} -q", both)
        found.setdefault("mean of both networks", []).append(macro_f1(both))
        for number, (title, (given, options)) in enumerate(FUSED.items()):
            out = work / f"fused-{number}-{seed}"
            start = time.perf_counter()
            named = given.format(**runs)
            call(f"xgboost-fuse {named} {split} -o {out} {options} --features {work / 'features'} --seed {seed} -q")
            taken = time.perf_counter() - start
            tried = json.loads((out / "run.json").read_text())
            kept = "+".join(json.loads((out / "model.json").read_text())["parts"])
            print(f"seed {seed}: {title}: {tried['rounds']} rounds on {kept}, {taken:.0f} s", file=sys.stderr)
            found.setdefault(title, []).append(macro_f1(out))
    print(f"\nmacro F1, test\n{'':40}" + "".join(f"{f'seed {seed}':>9}" for seed in seeds) + f"{'mean':>9}")
    for title, row in found.items():
        figure(f"fused: macro F1 of {title}", float(np.mean(row)))
        print(f"{title:40}" + "".join(f"{value:9.4f}" for value in (*row, float(np.mean(row)))))
    for seed, last in zip(seeds, found["runs mended by trees, both runs"], strict=True):
        rows = zip(*(found[f"network alone, {name}"] for name in ("plain", "cbam")), strict=True)
        best = max(list(rows)[seeds.index(seed)])
        figure(f"fused: macro F1 less the best run's, seed {seed}", last - best)


def macro_f1(given: Path) -> float:
    return json.loads(call(f"evaluate {given} --json -q"))["macro_f1"]


def speed(rounds: int) -> None:
    """Features beside the network's own forward pass, on tensors that are ready; turn by turn."""
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

            taken: dict[str, list[float]] = {"forward": [], "features": []}
            for turn in range(rounds + 1):
                for name, own in (("forward", forward), ("features", partial(deep_features, model, images, precision))):
                    start = time.perf_counter()
                    own()
                    if turn:
                        taken[name].append(time.perf_counter() - start)
            own = {name: len(images) / float(np.median(each)) for name, each in taken.items()}
            ratio = own["features"] / own["forward"]
            figure(f"features {precision}: share of forward speed, {backbone}", ratio)
            print(f"{backbone:24} {precision:8} {own['forward']:8.1f} {own['features']:8.1f}  {ratio:.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", default="table,speed")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    if "speed" in asked.only:
        speed(asked.rounds)
    if "table" in asked.only:
        with tempfile.TemporaryDirectory() as scratch:
            figures(asked.work or Path(scratch), [int(seed) for seed in asked.seeds.split(",")], asked.epochs)
