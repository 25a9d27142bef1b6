"""What class-activation maps cost beside the plain forward pass, and beside the package pytorch-grad-cam.

    python tests/benchmarks/explain.py [--only gradcam,scorecam,channels] [--run RUN --cells cells/]

Weights are random, but for `--run`: a fine-tuned run folder, on whose images in `--cells` Score-CAM of 64
channels is compared with the exact one. Each comparison is of one process, turn by turn; ratios are of medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam import score_cam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from wbctool.device import autocast, images_at_once
from wbctool.explaining.explainer import Explainer
from wbctool.modeling.architecture import Architecture
from wbctool.modeling.classifier import Classifier

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKBONES = ("resnet50", "densenet121", "tf_efficientnetv2_b0", "mobilenetv3_large_100", "mobilenetv2_100")
CLASSES = tuple("abcdefghijk")
score_cam.tqdm = type("Silent", (), {"tqdm": staticmethod(lambda given: given)})


class Normalised(nn.Module):
    """A classifier that takes normalised images, as the package gives them."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images * self.model.std + self.model.mean)


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each call, the calls taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(each)) for name, each in taken.items()}


def made(backbone: str, **more: object) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(Architecture(backbone, CLASSES, 224, **more))
    return model.to(DEVICE, memory_format=torch.channels_last).eval()


def plain(model: nn.Module, images: torch.Tensor, precision: str) -> None:
    with torch.inference_mode(), autocast(DEVICE, precision):
        for part in images.split(images_at_once(DEVICE)):
            model(part.contiguous(memory_format=torch.channels_last)).cpu()


def package(method: str, model: Classifier, images: torch.Tensor, layer: str, count: int = 16) -> Callable[[], object]:
    """A call of the package on images in its own layout, with the gradients its users have."""
    kind = getattr(pytorch_grad_cam, {"gradcam": "GradCAM", "scorecam": "ScoreCAM"}[method])
    normal = (images.float() - model.mean) / model.std

    def call() -> None:
        model.requires_grad_(True)
        layers = [model.backbone.get_submodule(layer)]
        with kind(Normalised(model), layers) as cam:
            for part in normal.split(count):
                with torch.no_grad():
                    targets = [ClassifierOutputTarget(0)] * len(part)
                with torch.enable_grad():
                    cam(part, targets)
        model.requires_grad_(False)

    return call


def gradcam(rounds: int) -> None:
    print(f"\n| Grad-CAM at the last stage, 224 px, {DEVICE} | plain/s | maps/s | cost over plain | package/s | × |")
    print("| --- | --- | --- | --- | --- | --- |")
    images = torch.randint(0, 256, (32, 3, 224, 224), dtype=torch.uint8, device=DEVICE)
    for backbone in BACKBONES:
        for precision in ("float32", "bf16"):
            ours, theirs = made(backbone), made(backbone).to(memory_format=torch.contiguous_format)
            explainer = Explainer(ours, precision=precision)
            calls = {
                "plain": lambda ours=ours, precision=precision: plain(ours, images, precision),
                "ours": lambda explainer=explainer: explainer(images),
                "package": package("gradcam", theirs, images, next(iter(explainer.layers))),
            }
            took = medians(calls, rounds)
            row = [f"{32 / took['plain']:.1f}", f"{32 / took['ours']:.1f}", f"{took['ours'] / took['plain']:.2f}"]
            row += [f"{32 / took['package']:.1f}", f"{took['package'] / took['ours']:.1f}"]
            print(f"| {backbone} {precision} | {' | '.join(row)} |", flush=True)


def score(rounds: int) -> None:
    print(
        f"\n| Score-CAM, 224 px, {DEVICE} | exact, s an image | package, s | × | 64 channels, s | × faster than exact |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, device=DEVICE)
    for backbone in ("resnet50", "mobilenetv2_100"):
        ours, theirs = made(backbone), made(backbone).to(memory_format=torch.contiguous_format)
        for precision in ("float32", "bf16"):
            exact = Explainer(ours, ("scorecam",), precision=precision)
            some = Explainer(ours, ("scorecam",), precision=precision, channels=64)
            calls = {
                "exact": lambda exact=exact: exact(images),
                "some": lambda some=some: some(images),
                "package": package("scorecam", theirs, images, next(iter(exact.layers))),
            }
            took = medians(calls, max(1, rounds // 3))
            row = [f"{took['exact']:.1f}", f"{took['package']:.1f}", f"{took['package'] / took['exact']:.1f}"]
            row += [f"{took['some']:.2f}", f"{took['exact'] / took['some']:.1f}"]
            print(f"| {backbone} {precision} | {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="gradcam")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for part in given.only.split(","):
        {"gradcam": gradcam, "scorecam": score}[part](given.rounds)


if __name__ == "__main__":
    main()
