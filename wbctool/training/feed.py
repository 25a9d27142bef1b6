"""What a training takes its batches from: images, or features that a frozen backbone computed once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from wbctool.console import Progress, note
from wbctool.device import autocast, free_memory, images_at_once
from wbctool.modeling.ensembles import Trainable
from wbctool.pipeline.signals import DeferredSignals
from wbctool.training.augmentation import Augmentation
from wbctool.training.images import ImageStore
from wbctool.training.losses import Objective
from wbctool.training.processes import Processes
from wbctool.training.recipe import Recipe
from wbctool.training.schedules import Phase

_AHEAD = 3  # batches made ahead

Item = TypeVar("Item")


@dataclass
class Samples:
    """The images of a split: their rows in the image store, and their classes, each of shape (n,)."""

    rows: np.ndarray
    targets: Tensor


@dataclass(frozen=True)
class Batch:
    """What one process takes of one step.

    `inputs` are images, uint8 (n, 3, side, side), or, where `frozen`, the features a frozen backbone made of them;
    `targets` class indices (n,); `draws` random numbers of the augmentation (n, 16). `weight` is that of the whole
    batch in the loss, over all processes.
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
        chunks = (torch.tensor_split(tensor, count) for tensor in (self.inputs, self.targets, self.draws))
        for inputs, targets, draws in zip(*chunks, strict=True):
            yield replace(self, inputs=inputs, targets=targets, draws=draws)


def epoch_order(targets: np.ndarray, sampling: str, seed: int, epoch: int) -> np.ndarray:
    """Return the indices of the samples of an epoch, from 1, in random order, shape (n,), by their classes (n,).

    `shuffled` takes each sample once; `balanced` each class equally often, and within a class no sample more than once
    more than another.
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


class DataFeed:
    """The images of train and val, and what a frozen backbone computes of them; `val` may be empty."""

    def __init__(
        self,
        images: ImageStore,
        train: Samples,
        val: Samples,
        recipe: Recipe,
        processes: Processes,
        device: torch.device,
        quiet: bool = False,
    ) -> None:
        self.images, self.train, self.val = images, train, val
        self.recipe, self.processes, self.device = recipe, processes, device
        self.quiet = quiet or not processes.is_main
        self.augment = Augmentation(recipe)
        self._val_features: Tensor | None = None

    def batches(
        self, order: Sequence[np.ndarray], epoch: int, features: Tensor | None, objective: Objective
    ) -> Iterator[Batch]:
        """Yield batches on the device, of each the samples of this process.

        `order` has the indices of the training samples of each batch; `features`, from `frozen_features`, take the
        place of images.
        """
        targets = self.train.targets
        draws = self.augment.draws(len(targets), self.recipe.seed, epoch)
        views = 1 if features is None else len(features)

        def make() -> Iterator[Batch]:
            for batch in order:
                mine = self.processes.mine(batch)
                weight = float(objective.weight(targets[batch]))
                if features is None:
                    inputs = self.images.batch(self.train.rows[mine])
                else:
                    inputs = features[(epoch - 1) % views, mine]
                yield Batch(inputs, targets[mine], draws[mine], weight, features is not None).pinned(self.device)

        for batch in prefetch(make()):
            yield batch.to(self.device)

    def frozen_features(self, model: Trainable, phase: Phase, signals: DeferredSignals) -> Tensor | None:
        """Return what a frozen backbone computes of each training image, (views, n, …); keep that of validation images.

        Of several views the first is the image as it is, the others are augmented. None where the backbone learns, or
        memory does not hold the features.
        """
        self._val_features = None
        views = min(self.recipe.frozen_views, phase.epochs)
        if not phase.is_frozen or not model.has_frozen_features or views == 0:
            return None
        model.eval()
        example = self._compute(model, self.train.rows[:1], 0, np.arange(1))
        total = views * len(self.train.rows) + len(self.val.rows)
        needed = example.numel() * example.element_size() * total
        if needed > free_memory(self.device) // 2:
            if not self.quiet:
                note(f"features of {needed / 2**30:.1f} GiB do not fit in memory: computed again in each frozen epoch")
            return None
        with Progress("train: features", "images", self.quiet, total) as progress:

            def compute_all(rows: np.ndarray, view: int) -> Tensor:
                features = torch.zeros(len(rows), *example.shape[1:], dtype=example.dtype, device=self.device)
                step = images_at_once(self.device) * self.processes.count
                for start in range(0, len(rows), step):
                    mine = self.processes.mine(np.arange(start, min(start + step, len(rows))))
                    if len(mine):
                        features[mine] = self._compute(model, rows, view, mine)
                    progress.step(count=min(step, len(rows) - start))
                    signals.raise_received()
                return self.processes.sum(features)

            train = torch.stack([compute_all(self.train.rows, view) for view in range(views)])
            self._val_features = compute_all(self.val.rows, 0)
        model.train()
        return train

    @torch.no_grad()
    def _compute(self, model: Trainable, rows: np.ndarray, view: int, chosen: np.ndarray) -> Tensor:
        """Features of the chosen rows, of a view."""
        images = self.images.batch(rows[chosen]).to(self.device)
        if view:
            draws = self.augment.draws(len(rows), self.recipe.seed, view)[chosen]
            images = self.augment(images, draws.to(self.device))
        with autocast(self.device, self.recipe.precision):
            return model.frozen_features(images)

    def val_scores(self, model: Trainable, frozen: bool) -> Tensor:
        """Return logits of all validation images, (n, classes), float32; where `frozen`, of the kept features."""
        count, features = len(self.val.rows), self._val_features if frozen else None
        scores = torch.zeros(count, len(model.architecture.classes), device=self.device)
        mine = self.processes.mine(np.arange(count))
        step = images_at_once(self.device)
        for start in range(0, len(mine), step):
            index = mine[start : start + step]
            inputs = self.images.batch(self.val.rows[index]) if features is None else features[index]
            with autocast(self.device, self.recipe.precision):
                scores[index] = model(inputs.to(self.device), frozen=features is not None).float()
        return self.processes.sum(scores)
