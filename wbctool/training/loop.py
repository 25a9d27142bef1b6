"""The training loop: phases, the best epoch kept, stopped and resumed at any step."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from wbctool.console import Progress, note
from wbctool.device import autocast
from wbctool.errors import NO_MEMORY, DeviceError, InputError
from wbctool.modeling.ensembles import Trainable
from wbctool.modeling.side_heads import together
from wbctool.records.storage import atomic
from wbctool.training.averaging import Average
from wbctool.training.feed import ahead, batches_of, epoch_order
from wbctool.training.losses import Loss
from wbctool.training.phases import Batch, Feed, Phase, phases_of
from wbctool.training.processes import Processes
from wbctool.training.recipe import Recipe
from wbctool.training.schedules import Schedule, make_optimizer
from wbctool.training.stopping import Stopping

SAVE_EVERY = 60.0  # seconds between two states that are kept unasked
CHECK_EVERY = 20  # steps of a GPU between two looks at the loss, each of which waits for it


@dataclass
class State:
    """How far a training is.

    Attributes:
        phase: under way, from 0.
        epoch: finished, of all phases.
        step: finished in the epoch that is under way.
        sums: loss, its weight, right ones; of that epoch.
        spent: seconds of that epoch.
        phase_start: epochs before this phase.
        best_epoch: from 1; 0 before there is one.
        best_score: of that epoch, larger is better.
        best: weights after it.
        history: a row for each finished epoch.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    spent: float = 0.0
    phase_start: int = 0
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Course:
    """What a phase trains with.

    Attributes:
        net: the model as it is called, in a wrapper or not.
        fixed: what a frozen backbone made of the images; None where it works anew.
        optimizer, schedule, average: as they are; no average where none is asked for.
    """

    net: nn.Module
    fixed: Tensor | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    average: Average | None


class Trainer:
    """Trains one classifier.

    Args:
        model: on its device, channels last.
        feed: the images of train and val.
        recipe: the choices; `precision` is float32 or bf16 here.
        loss: the loss.
        folder: where `resume/` is kept.
        processes: among which each batch is shared out.
        quiet: no progress.
        compiled: run the model through `torch.compile`.
    """

    def __init__(
        self,
        model: Trainable,
        feed: Feed,
        recipe: Recipe,
        loss: Loss,
        folder: Path,
        processes: Processes,
        quiet: bool = False,
        compiled: bool = False,
    ) -> None:
        self.model, self.feed, self.recipe, self.loss, self.processes = model, feed, recipe, loss, processes
        self.device = next(model.parameters()).device
        self.state = State()
        self.quiet = quiet
        self.parts = 1  # into which a batch is cut where memory does not suffice
        self._compiled = compiled
        self._file = folder / "resume" / "state.pt"
        self._saved: dict[str, Any] | None = None
        self._kept_at = time.monotonic()
        self._started = time.perf_counter()
        self.phases = phases_of(recipe)

    def resume(self) -> int:
        """Take up what a stopped training left; the number of epochs it had finished.

        Raises:
            InputError: the saved state is damaged.
        """
        if not self._file.exists():
            return 0
        try:
            saved = torch.load(self._file, map_location="cpu", weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.state = State(**{**saved["state"], "best_score": tuple(saved["state"]["best_score"])})
        except Exception as error:  # torch's unpickler raises many kinds
            raise InputError(f"{self._file}: damaged ({type(error).__name__}); train again with --overwrite") from None
        self._saved = saved
        return self.state.epoch

    def run(self, on_epoch: Callable[[State], None]) -> State:
        """Train to the end; the model then holds its best weights.

        Args:
            on_epoch: called after each epoch, whose row is the last of the history.

        Raises:
            InputError: the loss became NaN or infinite.
            DeviceError: memory does not suffice for the smallest batch.
            KeyboardInterrupt, Terminated: by a signal, after saving.
        """
        images = len(self.feed.train.targets)
        total = sum(phase.epochs for phase in self.phases) * images
        done = self.state.epoch * images
        shown = Progress("train", "images", self.quiet or not self.processes.is_main, total, done)
        with shown as progress, Stopping() as stopping:
            for number in range(self.state.phase, len(self.phases)):
                if number > self.state.phase:
                    self.state.phase, self.state.phase_start = number, self.state.epoch
                if self.phases[number].epochs:
                    self._phase(self.phases[number], progress, stopping, on_epoch)
        if self.state.best:
            self.model.load_state_dict(self.state.best)
        return self.state

    def _phase(self, phase: Phase, progress: Progress, stopping: Stopping, on_epoch: Callable[[State], None]) -> None:
        end = self.state.phase_start + phase.epochs
        if self.state.epoch >= end or self._exhausted():
            return
        course = self._begin(phase, stopping)
        while self.state.epoch < end and not self._exhausted():
            epoch, rate = self.state.epoch + 1, course.schedule.rate
            self._started = time.perf_counter() - self.state.spent
            self.model.train()
            row: dict[str, Any] = {"epoch": epoch, "phase": phase.name, "lr": rate}
            row |= self._epoch(course, epoch, progress, stopping)
            self.processes.align(self.model)
            with course.average.in_place() if course.average else nullcontext():
                row |= self.evaluate(course.fixed is not None)
                row["seconds"] = round(time.perf_counter() - self._started, 3)
                self._keep(row)
            course.schedule.after_epoch(row.get("val_loss"))
            self.state.step, self.state.sums = 0, [0.0, 0.0, 0.0]
            self.state.spent = 0.0
            self._started = time.perf_counter()
            if self._is_due() or stopping.asked is not None or not self._file.exists():
                self._save(course)
            progress.clear()
            on_epoch(self.state)
            stopping.end_if_asked(lambda: None)

    def _begin(self, phase: Phase, stopping: Stopping) -> Course:
        """Set up a phase, or take it up where it was saved."""
        self.model.unfreeze(phase.unfreeze, self.recipe.batch_statistics == "keep")
        self.model.train()
        optimizer = make_optimizer(self.model, self.recipe, phase.frozen)
        steps = phase.epochs * len(self._batches(self.state.phase_start + 1))
        schedule = Schedule(optimizer, phase.schedule, steps, self.recipe)
        average = Average(self.model, self.recipe.ema) if self.recipe.ema else None
        if self._saved and self._saved["state"]["phase"] == self.state.phase:
            optimizer.load_state_dict(self._saved["optimizer"])
            schedule.load(self._saved["schedule"])
            if average:
                average.load(self._saved["average"], self._saved["averaged"])
        self._saved = None
        fixed = self.feed.fixed(self.model, phase, stopping)
        net = cast(nn.Module, torch.compile(self.model)) if self._compiled else self.model
        return Course(self.processes.wrapped(net), fixed, optimizer, schedule, average)

    def _epoch(self, course: Course, epoch: int, progress: Progress, stopping: Stopping) -> dict[str, float]:
        batches = self._batches(epoch)
        first = self.state.step
        progress.done = (epoch - 1) * len(self.feed.train.targets) + sum(map(len, batches[:first]))
        sums = torch.tensor(self.state.sums, dtype=torch.float64, device=self.device)
        for step, batch in enumerate(self._fetched(batches[first:], epoch, course.fixed), first):
            # all chance of a step follows from its number, so that a resumed training has the same
            torch.manual_seed(((self.recipe.seed * 100_003 + epoch) * 1_000_003 + step) * 1_009 + self.processes.number)
            sums += self._step(course, batch, epoch)
            self.state.step = step + 1
            last = step + 1 == len(batches)
            if self.device.type == "cpu" or step % CHECK_EVERY == 0 or last:
                self._check(float(sums[0]), epoch)
            progress.step(count=len(batches[step]), detail=f"epoch {epoch}/{self.recipe.epochs}")
            if stopping.asked is not None or (self._is_due() and not last):
                self.state.sums = sums.tolist()
                stopping.end_if_asked(partial(self._save, course))
                self._save(course)
        loss, weight, right = self.processes.sum(sums).tolist()
        seen = sum(map(len, batches))
        return {"train_loss": round(loss / weight * self.processes.count, 6), "train_accuracy": round(right / seen, 6)}

    def _step(self, course: Course, batch: Batch, epoch: int) -> Tensor:
        """One step of the optimiser; the sum of the loss, its weight, and how many were right."""
        while True:
            try:
                course.optimizer.zero_grad()
                sums = torch.zeros(3, dtype=torch.float64, device=self.device)
                for part in batch.parts(self.parts):
                    images = part.images if batch.fixed else self.feed.augment(part.images, part.draws)
                    with autocast(self.device, self.recipe.precision):
                        logits = course.net(images, fixed=batch.fixed)
                    every = logits.unbind() if logits.ndim == 3 else (logits,)  # a network may have several heads
                    losses = [self.loss.parts(each, part.targets, epoch)[0] for each in every]
                    total = reduce(torch.add, losses) / len(every)
                    (total * (self.processes.count / batch.weight)).backward()
                    sums[0] += total.detach()
                    answers = together(logits.detach()) if len(every) > 1 else logits.detach()
                    sums[2] += (answers.argmax(1) == part.targets).sum()
                sums[1] = batch.weight
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                self._cut_smaller(error, len(batch.targets))
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        course.optimizer.step()
        course.schedule.after_step()
        if course.average:
            course.average.update()
        return sums

    def _cut_smaller(self, error: Exception, size: int) -> None:
        """After memory ran out: smaller parts, whose gradients add up to the same step."""
        if not _is_out_of_memory(error):
            raise error
        if self.processes.count > 1 or size // (2 * self.parts) < 2:
            raise DeviceError(
                f"out of memory on {self.device.type} with {size // self.parts} images at once; "
                "give a smaller --batch-size, --size or backbone"
            ) from None
        self.parts *= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        note(f"out of memory: batches are cut into {self.parts} parts, their gradients added up")

    def _check(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise InputError(f"the loss became {loss} in epoch {epoch}; give a lower --lr, or --precision float32")

    def _batches(self, epoch: int) -> list[np.ndarray]:
        order = epoch_order(self.feed.train.targets.numpy(), self.recipe.sampling, self.recipe.seed, epoch)
        return batches_of(order, self.recipe.batch_size)

    def _fetched(self, batches: list[np.ndarray], epoch: int, fixed: Tensor | None) -> Iterator[Batch]:
        """Batches on the device, each with this process' share of it."""
        draws = self.feed.augment.draws(len(self.feed.train.targets), self.recipe.seed, epoch)
        targets = self.feed.train.targets
        views = 1 if fixed is None else len(fixed)

        def fetch() -> Iterator[Batch]:
            for batch in batches:
                own = batch[self.processes.number :: self.processes.count]
                weight = float(self.loss.weight(targets[batch]))
                images = self.feed.images(own) if fixed is None else fixed[(epoch - 1) % views, own]
                yield Batch(images, targets[own], draws[own], weight, fixed is not None).pinned(self.device)

        for batch in ahead(fetch()):
            yield batch.on(self.device)

    @torch.no_grad()
    def evaluate(self, fixed: bool) -> dict[str, float]:
        """Loss, accuracy and balanced accuracy on validation images; empty where there are none."""
        targets = self.feed.val.targets.to(self.device)
        if len(targets) == 0:
            return {}
        self.model.eval()
        scores = self.feed.val_scores(self.model, fixed)
        loss = float(self.loss.mean(scores, targets, self.state.epoch + 1))
        self._check(loss, self.state.epoch + 1)
        right = (scores.argmax(1) == targets).double()
        recalls = [right[targets == c].mean() for c in targets.unique()]
        return {
            "val_loss": round(loss, 6),
            "val_accuracy": round(float(right.mean()), 6),
            "val_balanced_accuracy": round(float(torch.stack(recalls).mean()), 6),
        }

    def _exhausted(self) -> bool:
        patience = self.recipe.patience
        since = self.state.epoch - max(self.state.best_epoch, self.state.phase_start)
        return bool(patience and len(self.feed.val.targets) and since >= patience)

    def _keep(self, row: dict[str, Any]) -> None:
        self.state.epoch = row["epoch"]
        self.state.history.append(row)
        score = (row.get("val_balanced_accuracy", 0.0), -row.get("val_loss", 0.0))
        if self.recipe.best_by == "loss":
            score = score[::-1]
            if self.loss.focal_from == row["epoch"]:  # another loss: what was best by the first says nothing now
                self.state.best_score = (-math.inf, -math.inf)
        if score >= self.state.best_score or self.recipe.best_by == "last":
            self.state.best_score, self.state.best_epoch = score, row["epoch"]
            self.state.best = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}

    def _is_due(self) -> bool:
        return time.monotonic() - self._kept_at > SAVE_EVERY

    def _save(self, course: Course) -> None:
        self._kept_at = time.monotonic()
        if not self.processes.is_main:
            return
        self.state.spent = time.perf_counter() - self._started
        saved: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": course.optimizer.state_dict(),
            "schedule": course.schedule.state(),
            "state": vars(self.state),
        }
        if course.average:
            saved |= {"average": course.average.state, "averaged": course.average.steps}
        with atomic(self._file) as stream:
            torch.save(saved, stream)
            stream.flush()
            os.fsync(stream.fileno())


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or NO_MEMORY in str(error)
