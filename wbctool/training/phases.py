"""The phases of a training, and what each takes its batches from: images, or features computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from wbctool.console import Progress, note
from wbctool.device import autocast, images_at_once
from wbctool.modeling.ensembles import Trainable
from wbctool.training.augmentation import Augmentation
from wbctool.training.feed import Pixels
from wbctool.training.processes import Processes
from wbctool.training.recipe import Recipe
from wbctool.training.stopping import Stopping


@dataclass(frozen=True)
class Phase:
    """A part of a training.

    Attributes:
        name: as progress and the history call it.
        epochs: how many it takes.
        unfreeze: which part of the backbone learns, as the recipe says it.
        schedule: the course of the learning rate.
    """

    name: str
    epochs: int
    unfreeze: str
    schedule: str

    @property
    def frozen(self) -> bool:
        """Whether the backbone learns nothing."""
        return self.name == "frozen"


def phases_of(recipe: Recipe) -> list[Phase]:
    """The frozen phase and the fine-tuning after it, either of which may have no epochs."""
    frozen = min(recipe.frozen_epochs, recipe.epochs)
    return [
        Phase("frozen", frozen, "none", recipe.frozen_schedule),
        Phase("fine-tune", recipe.epochs - frozen, recipe.unfreeze, recipe.schedule),
    ]


@dataclass
class Samples:
    """The images of a split.

    Attributes:
        rows: where they lie in the pixel file, shape (n,).
        targets: their classes, shape (n,).
    """

    rows: np.ndarray
    targets: Tensor


@dataclass(frozen=True)
class Batch:
    """What one process takes of one step.

    Attributes:
        images: uint8 (n, 3, side, side); or, where `fixed`, what a frozen backbone made of them.
        targets: class indices, (n,).
        draws: chances of the augmentation, (n, 16).
        weight: of the whole batch in the loss, over all processes.
        fixed: what `images` are.
    """

    images: Tensor
    targets: Tensor
    draws: Tensor
    weight: float
    fixed: bool

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(self, images=change(self.images), targets=change(self.targets), draws=change(self.draws))

    def pinned(self, device: torch.device) -> Batch:
        """In memory that a GPU can read by itself."""
        return self if device.type != "cuda" else self._each(lambda t: t if t.is_cuda else t.pin_memory())

    def on(self, device: torch.device) -> Batch:
        """On the device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def parts(self, count: int) -> Iterator[Batch]:
        """Cut into parts of nearly the same size."""
        if count == 1:
            yield self
            return
        chunks = (torch.tensor_split(tensor, count) for tensor in (self.images, self.targets, self.draws))
        for images, targets, draws in zip(*chunks, strict=True):
            yield replace(self, images=images, targets=targets, draws=draws)


class Feed:
    """The images of train and val, and what a frozen backbone makes of them.

    Args:
        pixels: decoded images.
        train: the images to fit.
        val: those to stop on; without any the last epoch is kept.
        device: where the model is.
        recipe: the choices.
        processes: among which work is shared out.
        room: bytes of memory that features may take.
        quiet: no progress.
    """

    def __init__(
        self,
        pixels: Pixels,
        train: Samples,
        val: Samples,
        device: torch.device,
        recipe: Recipe,
        processes: Processes,
        room: int,
        quiet: bool = False,
    ) -> None:
        self.pixels, self.train, self.val, self.device = pixels, train, val, device
        self.recipe, self.processes, self.room = recipe, processes, room
        self.quiet = quiet or not processes.is_main
        self.augment = Augmentation(recipe)
        self._val_fixed: Tensor | None = None

    def images(self, index: np.ndarray) -> Tensor:
        """Training images by their number in the split."""
        return self.pixels.batch(self.train.rows[index])

    def fixed(self, model: Trainable, phase: Phase, stopping: Stopping) -> Tensor | None:
        """What the frozen backbone makes of each training image; that of validation images is kept here.

        Of several views the first is the image as it is, the others are augmented.

        Returns:
            Shape (views, n, …); None where it changes, or memory does not hold it.
        """
        self._val_fixed = None
        views = min(self.recipe.frozen_views, phase.epochs)
        if not phase.frozen or not model.has_fixed_part or views == 0:
            return None
        model.eval()
        one = self._made(model, self.train.rows[:1], 0)
        total = views * len(self.train.rows) + len(self.val.rows)
        need = one.numel() * one.element_size() * total
        if need > self.room:
            if not self.quiet:
                note(f"features of {need / 2**30:.1f} GiB are too many to keep: computed anew in each frozen epoch")
            return None
        with Progress("train: features", "images", self.quiet, total) as progress:

            def over(rows: np.ndarray, view: int) -> Tensor:
                made = torch.zeros(len(rows), *one.shape[1:], dtype=one.dtype, device=self.device)
                step = images_at_once(self.device) * self.processes.count
                for start in range(0, len(rows), step):
                    own = np.arange(start, min(start + step, len(rows)))[self.processes.number :: self.processes.count]
                    if len(own):
                        made[own] = self._made(model, rows, view, own)
                    progress.step(count=min(step, len(rows) - start))
                    stopping.end_if_asked(lambda: None)
                return self.processes.sum(made)

            train = torch.stack([over(self.train.rows, view) for view in range(views)])
            self._val_fixed = over(self.val.rows, 0)
        model.train()
        return train

    @torch.no_grad()
    def _made(self, model: Trainable, rows: np.ndarray, view: int, own: np.ndarray | None = None) -> Tensor:
        """Features of some of the rows (all where `own` is None), of a view."""
        own = np.arange(len(rows)) if own is None else own
        images = self.pixels.batch(rows[own]).to(self.device)
        if view:
            draws = self.augment.draws(len(rows), self.recipe.seed, view)[own]
            images = self.augment(images, draws.to(self.device))
        with autocast(self.device, self.recipe.precision):
            return model.fixed(images)

    def val_scores(self, model: Trainable, fixed: bool) -> Tensor:
        """Logits of all validation images, (n, classes), float32."""
        count, held = len(self.val.rows), self._val_fixed if fixed else None
        scores = torch.zeros(count, len(model.architecture.classes), device=self.device)
        own = np.arange(count)[self.processes.number :: self.processes.count]
        step = images_at_once(self.device)
        for start in range(0, len(own), step):
            index = own[start : start + step]
            given = self.pixels.batch(self.val.rows[index]).to(self.device) if held is None else held[index]
            with autocast(self.device, self.recipe.precision):
                scores[index] = model(given, fixed=held is not None).float()
        return self.processes.sum(scores)
