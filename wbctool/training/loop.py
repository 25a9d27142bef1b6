"""The training loop: phases, the best epoch kept, stopped and resumed at any step."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
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
from wbctool.modeling.heads import mean_log_probabilities
from wbctool.pipeline.signals import DeferredSignals
from wbctool.records.storage import atomic
from wbctool.training.feed import Batch, DataFeed, batches_of, epoch_order
from wbctool.training.losses import Objective
from wbctool.training.schedules import Phase, Schedule, WeightAverage, make_optimizer, phases_of

SAVE_EVERY = 60.0  # seconds between two saved states
CHECK_EVERY = 20  # steps of a GPU between two looks at the loss, each of which waits for it


@dataclass
class TrainingState:
    """How far a training is."""

    phase: int = 0  # the current one, from 0
    epoch: int = 0  # epochs finished, of all phases
    step: int = 0  # steps finished in the current epoch
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # summed loss, its weight, correct; of the epoch
    spent: float = 0.0  # seconds of the current epoch
    phase_start: int = 0  # epochs before this phase
    best_epoch: int = 0  # from 1; 0 before there is one
    best_score: tuple[float, float] = (-math.inf, -math.inf)  # of that epoch; larger is better
    best: dict[str, Tensor] = field(default_factory=dict)  # weights after it
    history: list[dict[str, Any]] = field(default_factory=list)  # a row for each finished epoch

    def add_epoch(self, row: dict[str, Any], best_by: str, model: nn.Module) -> None:
        """Finish an epoch, by its row of the history; if it is the best so far, keep the model's weights."""
        self.epoch = row["epoch"]
        self.history.append(row)
        score = (row.get("val_balanced_accuracy", 0.0), -row.get("val_loss", 0.0))
        if best_by == "loss":
            score = score[::-1]
        if score >= self.best_score or best_by == "last":
            self.best_score, self.best_epoch = score, row["epoch"]
            self.best = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}


@dataclass
class TrainingContext:
    """What a phase trains with.

    `network` is the model as it is called, compiled or not, in a wrapper or not; `features` are what a frozen backbone
    computed of the training images, None where images are taken.
    """

    network: nn.Module
    features: Tensor | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    average: WeightAverage | None

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` restores."""
        saved: dict[str, Any] = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state()}
        if self.average:
            saved |= {"average": self.average.state, "averaged": self.average.steps}
        return saved

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore optimiser, schedule and average."""
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load(saved["schedule"])
        if self.average:
            self.average.steps = saved["averaged"]
            for key, value in saved["average"].items():
                self.average.state[key].copy_(value)


class Trainer:
    """Trains one classifier, which is on its device, channels last; `folder` is where `resume/` is kept."""

    def __init__(
        self,
        model: Trainable,
        feed: DataFeed,
        objective: Objective,
        folder: Path,
        quiet: bool = False,
        compiled: bool = False,
    ) -> None:
        self.model, self.feed, self.objective = model, feed, objective
        self.recipe, self.processes = feed.recipe, feed.processes
        self.device = next(model.parameters()).device
        self.state = TrainingState()
        self.phases = phases_of(self.recipe)
        self.chunks = 1  # into which a batch is cut where memory does not suffice
        self._quiet, self._compiled = quiet or not self.processes.is_main, compiled
        self._file = folder / "resume" / "state.pt"
        self._saved: dict[str, Any] | None = None
        self._saved_at = time.monotonic()
        self._epoch_started = time.perf_counter()

    def resume(self) -> int:
        """Load what a stopped training saved; return the number of epochs it had finished."""
        if self._file.exists():
            try:
                saved = torch.load(self._file, map_location="cpu", weights_only=True)
                self.model.load_state_dict(saved["model"])
                best_score = tuple(saved["state"]["best_score"])
                self.state, self._saved = TrainingState(**{**saved["state"], "best_score": best_score}), saved
            except Exception as error:  # torch's unpickler raises many types
                reason = type(error).__name__
                raise InputError(f"{self._file}: damaged ({reason}); train again with --overwrite") from None
        return self.state.epoch

    def run(self, on_epoch: Callable[[TrainingState], None]) -> TrainingState:
        """Train to the end; the model then has its best weights. `on_epoch` is called after each epoch.

        Raises:
            InputError: the loss became NaN or infinite.
            DeviceError: memory does not suffice for the smallest batch.
            KeyboardInterrupt, Terminated: by a signal, after saving.
        """
        images = len(self.feed.train.targets)
        total, done = sum(phase.epochs for phase in self.phases) * images, self.state.epoch * images
        with Progress("train", "images", self._quiet, total, done) as progress, DeferredSignals() as signals:
            for number in range(self.state.phase, len(self.phases)):
                if number > self.state.phase:
                    self.state.phase, self.state.phase_start = number, self.state.epoch
                if self.phases[number].epochs:
                    self._run_phase(self.phases[number], progress, signals, on_epoch)
        if self.state.best:
            self.model.load_state_dict(self.state.best)
        return self.state

    def _run_phase(
        self, phase: Phase, progress: Progress, signals: DeferredSignals, on_epoch: Callable[[TrainingState], None]
    ) -> None:
        end = self.state.phase_start + phase.epochs
        if self.state.epoch >= end or self._is_exhausted():
            return
        context = self._begin_phase(phase, signals)
        while self.state.epoch < end and not self._is_exhausted():
            epoch, learning_rate = self.state.epoch + 1, context.schedule.learning_rate
            self._epoch_started = time.perf_counter() - self.state.spent
            self.model.train()
            row: dict[str, Any] = {"epoch": epoch, "phase": phase.name, "lr": learning_rate}
            row |= self._run_epoch(context, epoch, progress, signals)
            self.processes.align(self.model)
            with context.average.in_place() if context.average else nullcontext():
                row |= self.evaluate(context.features is not None)
                row["seconds"] = round(time.perf_counter() - self._epoch_started, 3)
                if self.recipe.best_by == "loss" and epoch == self.objective.switch_epoch + 1:
                    self.state.best_score = (-math.inf, -math.inf)  # of another loss, which cannot be compared
                self.state.add_epoch(row, self.recipe.best_by, self.model)
            context.schedule.after_epoch(row.get("val_loss"))
            self.state.step, self.state.sums, self.state.spent = 0, [0.0, 0.0, 0.0], 0.0
            self._epoch_started = time.perf_counter()
            if self._is_save_due() or signals.received is not None or not self._file.exists():
                self._save(context)
            progress.clear()
            on_epoch(self.state)
            signals.raise_received()

    def _begin_phase(self, phase: Phase, signals: DeferredSignals) -> TrainingContext:
        """Set up a phase, or restore it where it was saved."""
        self.model.unfreeze(phase.unfreeze, self.recipe.batch_statistics == "keep")
        self.model.train()
        optimizer = make_optimizer(self.model, self.recipe, phase.is_frozen)
        steps = phase.epochs * len(self._order(self.state.phase_start + 1))
        schedule = Schedule(optimizer, phase.schedule, steps, self.recipe)
        average = WeightAverage(self.model, self.recipe.ema) if self.recipe.ema else None
        context = TrainingContext(self.model, None, optimizer, schedule, average)
        if self._saved and self._saved["state"]["phase"] == self.state.phase:
            context.load_state_dict(self._saved)
        self._saved = None
        context.features = self.feed.frozen_features(self.model, phase, signals)
        network = cast(nn.Module, torch.compile(self.model)) if self._compiled else self.model
        context.network = self.processes.wrapped(network)
        return context

    def _run_epoch(
        self, context: TrainingContext, epoch: int, progress: Progress, signals: DeferredSignals
    ) -> dict[str, float]:
        order, first = self._order(epoch), self.state.step
        progress.done = (epoch - 1) * len(self.feed.train.targets) + sum(map(len, order[:first]))
        sums = torch.tensor(self.state.sums, dtype=torch.float64, device=self.device)
        batches = self.feed.batches(order[first:], epoch, context.features, self.objective)
        for step, batch in enumerate(batches, first):
            # by the number of the step, so that a resumed training draws the same
            torch.manual_seed(((self.recipe.seed * 100_003 + epoch) * 1_000_003 + step) * 1_009 + self.processes.number)
            sums += self._step(context, batch, epoch)
            self.state.step = step + 1
            is_last = step + 1 == len(order)
            if self.device.type == "cpu" or step % CHECK_EVERY == 0 or is_last:
                self._check_finite(float(sums[0]), epoch)
            progress.step(count=len(order[step]), detail=f"epoch {epoch}/{self.recipe.epochs}")
            if signals.received is not None or (self._is_save_due() and not is_last):
                self.state.sums = sums.tolist()
                signals.raise_received(partial(self._save, context))
                self._save(context)
        loss, weight, correct = self.processes.sum(sums).tolist()
        count = sum(map(len, order))
        return {
            "train_loss": round(loss / weight * self.processes.count, 6),
            "train_accuracy": round(correct / count, 6),
        }

    def _step(self, context: TrainingContext, batch: Batch, epoch: int) -> Tensor:
        """Take a step of the optimiser; return the summed loss, its weight, and the number of correct samples."""
        while True:
            try:
                sums = self._accumulate_gradients(context, batch, epoch)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                self._cut_smaller(error, len(batch.targets))
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        context.optimizer.step()
        context.schedule.after_step()
        if context.average:
            context.average.update()
        return sums

    def _accumulate_gradients(self, context: TrainingContext, batch: Batch, epoch: int) -> Tensor:
        context.optimizer.zero_grad()
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for chunk in batch.chunks(self.chunks):
            inputs = chunk.inputs if batch.frozen else self.feed.augment(chunk.inputs, chunk.draws)
            with autocast(self.device, self.recipe.precision):
                logits = context.network(inputs, frozen=batch.frozen)
            heads = logits.unbind() if logits.ndim == 3 else (logits,)  # a network may have several
            total = reduce(torch.add, [self.objective.sum(head, chunk.targets, epoch) for head in heads]) / len(heads)
            (total * (self.processes.count / batch.weight)).backward()
            sums[0] += total.detach()
            combined = mean_log_probabilities(logits.detach()) if len(heads) > 1 else heads[0].detach()
            sums[2] += (combined.argmax(1) == chunk.targets).sum()
        sums[1] = batch.weight
        return sums

    def _cut_smaller(self, error: Exception, size: int) -> None:
        """After memory ran out, cut batches into smaller chunks, whose gradients add up to the same step."""
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and NO_MEMORY not in str(error):
            raise error
        if self.processes.count > 1 or size // (2 * self.chunks) < 2:
            raise DeviceError(
                f"out of memory on {self.device.type} with {size // self.chunks} images at once; "
                "give a smaller --batch-size, --size or backbone"
            ) from None
        self.chunks *= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        note(f"out of memory: batches are cut into {self.chunks} parts, their gradients added up")

    def _check_finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise InputError(f"the loss became {loss} in epoch {epoch}; give a lower --lr, or --precision float32")

    def _order(self, epoch: int) -> list[np.ndarray]:
        order = epoch_order(self.feed.train.targets.numpy(), self.recipe.sampling, self.recipe.seed, epoch)
        return batches_of(order, self.recipe.batch_size)

    @torch.no_grad()
    def evaluate(self, frozen: bool) -> dict[str, float]:
        """Return loss, accuracy and balanced accuracy on validation images; empty where there are none."""
        targets = self.feed.val.targets.to(self.device)
        if len(targets) == 0:
            return {}
        self.model.eval()
        scores = self.feed.val_scores(self.model, frozen)
        epoch = self.state.epoch + 1
        loss = float(self.objective.mean(scores, targets, epoch))
        self._check_finite(loss, epoch)
        correct = (scores.argmax(1) == targets).double()
        recalls = [correct[targets == label].mean() for label in targets.unique()]
        return {
            "val_loss": round(loss, 6),
            "val_accuracy": round(float(correct.mean()), 6),
            "val_balanced_accuracy": round(float(torch.stack(recalls).mean()), 6),
        }

    def _is_exhausted(self) -> bool:
        """Whether patience has run out."""
        epochs = self.state.epoch - max(self.state.best_epoch, self.state.phase_start)
        return bool(self.recipe.patience and len(self.feed.val.targets) and epochs >= self.recipe.patience)

    def _is_save_due(self) -> bool:
        return time.monotonic() - self._saved_at > SAVE_EVERY

    def _save(self, context: TrainingContext) -> None:
        self._saved_at = time.monotonic()
        if not self.processes.is_main:
            return
        self.state.spent = time.perf_counter() - self._epoch_started
        saved = {"model": self.model.state_dict(), **context.state_dict(), "state": vars(self.state)}
        with atomic(self._file) as stream:  # on the disk when this returns
            torch.save(saved, stream)
            stream.flush()
            os.fsync(stream.fileno())
