"""Train the cell network.

    python examples/cell_network/train.py CACHE WEIGHTS OUT.onnx [--without txl-575,txl-416] [--minutes 40]

CACHE is what `data_sets.py` writes, WEIGHTS MobileNetV2's of ImageNet. `--without` leaves laboratories out, to measure
on them. On two cores 40 minutes suffice.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from augment import SIDE, Source, augmented
from labels import read_samples
from network import CellNetwork, export
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

BATCH = 16
# How often a sample of each laboratory is drawn
SHARES = {
    "pbc": 0.34,
    "set-1": 0.14,
    "set-2": 0.12,
    "bcisc": 0.1,
    "bccd": 0.08,
    "txl-575": 0.08,
    "txl-416": 0.07,
    "tiles": 0.07,
    "drawn": 0.03,
}


class Views(IterableDataset):
    """Endless random views of samples."""

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        self.sources, self.seed = sources, seed

    def __iter__(self):
        cv2.setNumThreads(1)
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        laboratories = sorted({source.sample.laboratory for source in self.sources})
        of = {name: [s for s in self.sources if s.sample.laboratory == name] for name in laboratories}
        shares = np.array([SHARES[name] for name in laboratories])
        with_masks = [
            s for s in self.sources if s.sample.cells and s.sample.laboratory in ("pbc", "set-1", "set-2", "bcisc")
        ]
        while True:
            chosen = of[laboratories[rng.choice(len(laboratories), p=shares / shares.sum())]]
            image, allowed, depth = augmented(rng, chosen[rng.integers(len(chosen))], with_masks)
            yield image.transpose(2, 0, 1), allowed, depth


def loss_of(logits: Tensor, allowed: Tensor, depth: Tensor) -> Tensor:
    """Loss of logits (n, 6, height / 2, width / 2) at the size of the labels (n, height, width).

    Per pixel −log of the summed probability of the classes that it may have, and the overlap (Dice) of nuclei, white
    cells and red cells where these are known; L1 of the depth.
    """
    logits = functional.interpolate(logits, size=allowed.shape[1:], mode="bilinear", align_corners=False)
    bits = (allowed[:, None].long() >> torch.arange(5)[None, :, None, None]) & 1
    log_p = functional.log_softmax(logits[:, :5], dim=1)
    allowed_log_p = torch.logsumexp(log_p.masked_fill(bits == 0, -30.0), dim=1)
    informative = allowed != 31
    focus = (1 - allowed_log_p.detach().exp()).clamp(min=0.02) ** 0.5  # clear pixels count less
    pixels = -(allowed_log_p * informative * focus).sum() / informative.sum().clamp(min=1)
    p = log_p.exp()
    overlaps = []
    for positive, classes in ((8, [3]), (12, [2, 3]), (2, [1])):
        inside = ((allowed & positive) != 0) & ((allowed & ~positive) == 0)
        outside = (allowed & positive) == 0
        known = inside | outside
        chance = p[:, classes].sum(1) * known
        common = (chance * inside).sum()
        overlaps.append(1 - (2 * common + 1) / (chance.sum() + inside.sum() + 1))
    with_depth = depth != 255
    error = (torch.sigmoid(logits[:, 5]) - depth.float().clamp(max=200) / 200).abs()
    return pixels + 0.3 * sum(overlaps) + (error * with_depth).sum() / with_depth.sum().clamp(min=1)


def train(
    sources: Sequence[Source], weights: Path, minutes: float, seed: int, learning_rate: float, start: Path | None
) -> CellNetwork:
    """Train for some minutes, by AdamW and one cycle of the learning rate; weights are averaged over time."""
    torch.manual_seed(seed)
    network = CellNetwork(weights)
    if start:
        network.load_state_dict(torch.load(start, weights_only=True))
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    encoder = list(network.encoder.parameters())
    rest = [p for name, p in network.named_parameters() if not name.startswith("encoder")]
    optimiser = torch.optim.AdamW(
        [{"params": encoder, "lr": 0.4 * learning_rate}, {"params": rest, "lr": learning_rate}], weight_decay=0.01
    )
    bases = [group["lr"] for group in optimiser.param_groups]
    loader = DataLoader(Views(sources, seed), batch_size=BATCH, num_workers=1, prefetch_factor=4)
    network.train().to(memory_format=torch.channels_last)
    begin, smooth = time.monotonic(), 0.0
    for step, (image, allowed, depth) in enumerate(loader, start=1):
        done = (time.monotonic() - begin) / 60 / minutes
        if done >= 1:
            break
        factor = min(1.0, step / 100) * (0.5 * (1 + np.cos(np.pi * done)) + 0.005)
        for group, base in zip(optimiser.param_groups, bases, strict=True):
            group["lr"] = base * factor
        image = image.float().to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image)
        loss = loss_of(logits.float(), allowed, depth)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        average.update_parameters(network)
        smooth = loss.item() if step == 1 else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"step {step}, {done:.0%}: loss {smooth:.4f}", flush=True)
    return average.module


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cache", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without", default="")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, help="state of an earlier training")
    options = parser.parse_args()
    samples = read_samples(options.cache)
    left_out = set(filter(None, options.without.split(",")))
    if unknown := left_out - SHARES.keys():
        parser.error(f"--without: unknown {', '.join(sorted(unknown))}; choose from {', '.join(SHARES)}")
    sources = [Source(sample) for sample in samples if sample.laboratory not in left_out]
    print(
        f"{len(sources):,} samples of {', '.join(sorted({s.sample.laboratory for s in sources}))}; views of {SIDE} px"
    )
    network = train(sources, options.weights, options.minutes, options.seed, options.learning_rate, options.start)
    torch.save(network.state_dict(), options.out.with_suffix(".pt"))
    export(network, options.out)


if __name__ == "__main__":
    main()
