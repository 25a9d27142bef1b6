"""Samples of a split, their order in an epoch, batches of them, and how batches are made ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

_AHEAD = 3  # batches made ahead

Item = TypeVar("Item")


@dataclass
class Samples:
    """The images of a split.

    Attributes:
        rows: their indices in the image store, shape (n,).
        targets: their classes, shape (n,).
    """

    rows: np.ndarray
    targets: Tensor


@dataclass(frozen=True)
class Batch:
    """What one process takes of one step.

    Attributes:
        inputs: images, uint8 (n, 3, side, side); or, where `frozen`, the features a frozen backbone made of them.
        targets: class indices, (n,).
        draws: random numbers of the augmentation, (n, 16).
        weight: of the whole batch in the loss, over all processes.
        frozen: what the inputs are.
    """

    inputs: Tensor
    targets: Tensor
    draws: Tensor
    weight: float
    frozen: bool

    def _apply(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(self, inputs=change(self.inputs), targets=change(self.targets), draws=change(self.draws))

    def pinned(self, device: torch.device) -> Batch:
        """Return the batch in memory that a GPU can read by itself."""
        return self if device.type != "cuda" else self._apply(lambda t: t if t.is_cuda else t.pin_memory())

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return self._apply(lambda tensor: tensor.to(device, non_blocking=True))

    def chunks(self, count: int) -> Iterator[Batch]:
        """Cut the batch into chunks of nearly the same size."""
        if count == 1:
            yield self
            return
        chunks = (torch.tensor_split(tensor, count) for tensor in (self.inputs, self.targets, self.draws))
        for inputs, targets, draws in zip(*chunks, strict=True):
            yield replace(self, inputs=inputs, targets=targets, draws=draws)


def epoch_order(targets: np.ndarray, sampling: str, seed: int, epoch: int) -> np.ndarray:
    """Return the indices of the samples of an epoch, in random order.

    Args:
        targets: class of each sample, shape (n,).
        sampling: `shuffled`, each sample once; `balanced`, each class equally often, and within a class no sample more
            than once more than another.
        seed: of the recipe.
        epoch: from 1.

    Returns:
        Shape (n,), int.
    """
    random = np.random.default_rng((seed, epoch))
    if sampling == "shuffled":
        return random.permutation(len(targets))
    classes = np.unique(targets)
    counts = np.full(len(classes), len(targets) // len(classes))
    counts[random.permutation(len(classes))[: len(targets) % len(classes)]] += 1
    drawn = []
    for number, count in zip(classes, counts, strict=True):
        members = np.flatnonzero(targets == number)
        repeats = -(-count // len(members))
        drawn.append(np.concatenate([random.permutation(members) for _ in range(repeats)])[:count])
    return random.permutation(np.concatenate(drawn))


def batches_of(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut an order into batches; a last one of under a quarter of the others joins the one before.

    Batch statistics of a single image would be undefined, those of a few images are poor.
    """
    cuts = list(range(0, len(order), batch_size))
    if len(cuts) > 1 and len(order) - cuts[-1] < max(2, batch_size // 4):
        cuts.pop()
    return [order[start:end] for start, end in zip(cuts, [*cuts[1:], len(order)], strict=True)]


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items; a thread makes the next ones meanwhile, and what it raises is raised here."""
    source, end = iter(items), object()
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(next, source, end) for _ in range(_AHEAD))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield cast(Item, item)
    finally:
        pool.shutdown(cancel_futures=True)
