"""Time of class-activation maps beside that of the forward pass, and of the package pytorch-grad-cam.

    python tests/benchmarks/explain.py [--only gradcam,scorecam] [--run RUN --cells cells/]

Weights are random, but for `--run`: a fine-tuned run folder, on whose test images in `--cells` Score-CAM of 64
channels is compared with the exact one, and the exact one with the package. What is compared runs in one process,
turn by turn; ratios are of medians. The package gets the network in the memory layout of `timm`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytorch_grad_cam
import torch
from figures import figure
from pytorch_grad_cam import score_cam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from wbctool.device import autocast, images_at_once
from wbctool.explaining.explainer import Explainer
from wbctool.imaging.inputs import to_input
from wbctool.inputs.folders import read_inputs
from wbctool.modeling.architecture import Architecture
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.run_folder import load
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKBONES = ("resnet50", "densenet121", "tf_efficientnetv2_b0", "mobilenetv3_large_100", "mobilenetv2_100")
CLASSES = tuple("abcdefghijk")
IMAGES = 22  # on which maps of a fine-tuned run are compared
score_cam.tqdm = type("Silent", (), {"tqdm": staticmethod(lambda values: values)})


class Normalized(nn.Module):
    """A classifier of normalized images, which the package takes."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images * self.model.std + self.model.mean)


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call; the calls take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(each)) for name, each in seconds.items()}


def make_model(backbone: str, **more: object) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(Architecture(backbone, CLASSES, 224, **more))
    return model.to(DEVICE, memory_format=torch.channels_last).eval()


def plain(model: nn.Module, images: torch.Tensor, precision: str) -> None:
    with torch.inference_mode(), autocast(DEVICE, precision):
        for part in images.split(images_at_once(DEVICE)):
            model(part.contiguous(memory_format=torch.channels_last)).cpu()


def package_call(
    method: str, model: Classifier, images: torch.Tensor, layer: str, classes: np.ndarray | None = None
) -> Callable[[], np.ndarray]:
    """Return a call of the package, with gradients as its users have them, on 16 images at a time."""
    kind = getattr(pytorch_grad_cam, {"gradcam": "GradCAM", "scorecam": "ScoreCAM"}[method])
    normal = (images.float() - model.mean) / model.std

    def call() -> np.ndarray:
        model.requires_grad_(True)
        numbers = np.zeros(len(images), int) if classes is None else classes
        with kind(Normalized(model), [model.backbone.get_submodule(layer)]) as cam:
            targets = [ClassifierOutputTarget(int(number)) for number in numbers]
            starts = range(0, len(images), 16)
            maps = [cam(normal[start : start + 16], targets[start : start + 16]) for start in starts]
        model.requires_grad_(False)
        return np.concatenate(maps)

    return call


def gradcam(rounds: int) -> None:
    print(f"\n| Grad-CAM at the last stage, 224 px, {DEVICE} | plain/s | maps/s | cost over plain | package/s | × |")
    print("| --- | --- | --- | --- | --- | --- |")
    images = torch.randint(0, 256, (32, 3, 224, 224), dtype=torch.uint8, device=DEVICE)
    for backbone in BACKBONES:
        for precision in ("float32", "bf16"):
            ours, theirs = make_model(backbone), make_model(backbone).to(memory_format=torch.contiguous_format)
            explainer = Explainer(ours, precision=precision)
            calls = {
                "plain": lambda ours=ours, precision=precision: plain(ours, images, precision),
                "ours": lambda explainer=explainer: explainer(images),
                "package": package_call("gradcam", theirs, images, next(iter(explainer.layers))),
            }
            seconds = medians(calls, rounds)
            row = [
                f"{32 / seconds['plain']:.1f}",
                f"{32 / seconds['ours']:.1f}",
                f"{seconds['ours'] / seconds['plain']:.2f}",
            ]
            row += [f"{32 / seconds['package']:.1f}", f"{seconds['package'] / seconds['ours']:.1f}"]
            figure(f"Grad-CAM {precision}: cost over plain, {backbone}", seconds["ours"] / seconds["plain"])
            figure(f"Grad-CAM {precision}: times the package, {backbone}", seconds["package"] / seconds["ours"])
            print(f"| {backbone} {precision} | {' | '.join(row)} |", flush=True)


def score(rounds: int) -> None:
    print(
        f"\n| Score-CAM, 224 px, {DEVICE} | exact, s an image | package, s | × | 64 channels, s | × faster than exact |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, device=DEVICE)
    for backbone in ("resnet50", "mobilenetv2_100"):
        ours, theirs = make_model(backbone), make_model(backbone).to(memory_format=torch.contiguous_format)
        for precision in ("float32", "bf16"):
            exact = Explainer(ours, ("scorecam",), precision=precision)
            some = Explainer(ours, ("scorecam",), precision=precision, parameters={"channels": 64})
            calls = {
                "exact": lambda exact=exact: exact(images),
                "some": lambda some=some: some(images),
                "package": package_call("scorecam", theirs, images, next(iter(exact.layers))),
            }
            seconds = medians(calls, max(1, rounds // 3))
            row = [
                f"{seconds['exact']:.1f}",
                f"{seconds['package']:.1f}",
                f"{seconds['package'] / seconds['exact']:.1f}",
            ]
            row += [f"{seconds['some']:.2f}", f"{seconds['exact'] / seconds['some']:.1f}"]
            figure(f"Score-CAM {precision}: times the package, {backbone}", seconds["package"] / seconds["exact"])
            figure(f"Score-CAM {precision}: 64 channels against exact, {backbone}", seconds["exact"] / seconds["some"])
            print(f"| {backbone} {precision} | {' | '.join(row)} |", flush=True)


def tuned(run: Path, cells: str, rounds: int) -> None:
    model = load(run, DEVICE).model
    size = model.architecture.size
    records = [r for r in read_inputs([cells], Selection(), Tally()) if r.get("split") == "test" and "path" in r]
    chosen = records[:: max(1, len(records) // IMAGES)][:IMAGES]
    images = torch.from_numpy(np.stack([to_input(r["path"], size) for r in chosen])).permute(0, 3, 1, 2).to(DEVICE)
    exact = Explainer(model, ("scorecam",), views=1)
    whole = exact(images)
    print(f"\n{run}: {model.architecture.backbone}, {len(images)} test images of {cells}")
    for channels in (16, 32, 64, 128):
        some = Explainer(model, ("scorecam",), views=1, parameters={"channels": channels})(images, whole.classes)
        pairs = zip(some.maps["scorecam"], whole.maps["scorecam"], strict=True)
        correlations = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs]
        lowest, median = np.min(correlations), np.median(correlations)
        print(f"  {channels} channels against all: correlation {median:.4f}, least {lowest:.4f}")
    layer = next(iter(exact.layers))
    theirs = package_call("scorecam", model, images[:2], layer, whole.classes)
    half = Explainer(model, ("scorecam",), views=1, precision="bf16")
    calls = {"float32": lambda: exact(images[:2]), "bf16": lambda: half(images[:2]), "package": theirs}
    seconds = medians(calls, max(1, rounds // 3))
    apart = np.abs(theirs() - whole.maps["scorecam"][:2]).max()
    ratios = ", ".join(f"{seconds['package'] / seconds[name]:.1f} × in {name}" for name in ("float32", "bf16"))
    print(f"  exact against the package: {ratios}; the same maps to {apart:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="gradcam,scorecam")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--cells")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name in filter(None, options.only.split(",")):
        {"gradcam": gradcam, "scorecam": score}[name](options.rounds)
    if options.run:
        tuned(options.run, options.cells, options.rounds)


if __name__ == "__main__":
    main()
