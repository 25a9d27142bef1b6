"""The training loop: a frozen phase, then fine-tuning; best epoch kept; resumable at every epoch."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbctool.device import autocast
from wbctool.errors import InputError
from wbctool.modeling.architecture import Classifier
from wbctool.outputs import atomic
from wbctool.training.augmentation import make_augmentation
from wbctool.training.feed import Pixels, epoch_batches
from wbctool.training.losses import make_loss
from wbctool.training.options import TrainOptions

EVALUATION_BATCH = 64


@dataclass
class Samples:
    """Where the images of a split lie in the pixel file, and their classes."""

    rows: np.ndarray
    targets: Tensor


@dataclass
class State:
    """All that a resumed training needs; written after each epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains one classifier.

    Args:
        model: on its device, channels last.
        pixels: the decoded images.
        train, val: the two splits; without validation images the last epoch is kept.
        options: the choices; `precision` is float32 or bf16 here.
        folder: where `resume/` is kept.
    """

    def __init__(
        self, model: Classifier, pixels: Pixels, train: Samples, val: Samples, options: TrainOptions, folder: Path
    ) -> None:
        self.model, self.pixels, self.train, self.val, self.options = model, pixels, train, val, options
        self.device = next(model.parameters()).device
        counts = torch.bincount(train.targets, minlength=len(model.architecture.classes))
        self.loss = make_loss(options.loss, options.gamma, options.class_weights, counts.to(self.device))
        self.augment = make_augmentation(options.augment)
        self.state = State()
        self._file = folder / "resume" / "state.pt"
        self._saved: dict[str, Any] | None = None
        frozen = min(options.frozen_epochs, options.epochs)
        self.phases = [("frozen", frozen, options.frozen_lr), ("fine-tune", options.epochs - frozen, options.lr)]

    def resume(self) -> int:
        """Take up what a killed run left; the number of epochs it had done.

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

    def run(self, on_epoch: Callable[[dict[str, Any]], None]) -> State:
        """Train to the end; the model then holds its best weights."""
        first = 0
        for phase, epochs, lr in self.phases:
            open_phase = epochs and self.state.epoch < first + epochs
            if open_phase and not self._phase(phase, first, epochs, lr, on_epoch):
                break
            first += epochs
        if self.state.best:
            self.model.load_state_dict(self.state.best)
        return self.state

    def _phase(
        self, phase: str, first: int, epochs: int, lr: float, on_epoch: Callable[[dict[str, Any]], None]
    ) -> bool:
        """One phase; False where training stopped early."""
        self.model.freeze(phase == "frozen")
        learning = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=lr, weight_decay=self.options.weight_decay)
        steps = epochs * len(list(self._batches(first + 1)))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
        if self._saved and self._saved["phase"] == phase:
            optimizer.load_state_dict(self._saved["optimizer"])
            schedule.load_state_dict(self._saved["schedule"])
        self._saved = None
        for epoch in range(self.state.epoch + 1, first + epochs + 1):
            if self._exhausted():
                return False
            start = time.perf_counter()
            row: dict[str, Any] = {"epoch": epoch, "phase": phase, "lr": schedule.get_last_lr()[0]}
            row |= self._train_epoch(epoch, optimizer, schedule)
            row |= self.evaluate(self.val, "val_")
            row["seconds"] = round(time.perf_counter() - start, 3)
            self._keep(row)
            self._save(phase, optimizer, schedule)
            on_epoch(row)
        return not self._exhausted()

    def _exhausted(self) -> bool:
        patience = self.options.patience
        return bool(patience and len(self.val.rows) and self.state.epoch - self.state.best_epoch >= patience)

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        return epoch_batches(len(self.train.rows), self.options.batch_size, self.options.seed, epoch)

    def _train_epoch(
        self, epoch: int, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
    ) -> dict[str, float]:
        # all chance of an epoch follows from the seed and its number, so a resumed run draws the same
        torch.manual_seed(self.options.seed * 1_000_003 + epoch)
        self.model.train()
        total, right, seen = 0.0, 0, 0
        for index in self._batches(epoch):
            images = self.pixels.batch(self.train.rows[index]).to(self.device, non_blocking=True)
            targets = self.train.targets[index].to(self.device)
            images = self.augment(images)
            with autocast(self.device, self.options.precision):
                logits = self.model(images)
            loss = self.loss(logits, targets)
            value = loss.item()
            if not math.isfinite(value):
                raise InputError(f"the loss became {value} in epoch {epoch}; give a lower --lr, or --precision float32")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += value * len(index)
            right += int((logits.argmax(1) == targets).sum())
            seen += len(index)
        return {"train_loss": round(total / seen, 6), "train_accuracy": round(right / seen, 6)}

    @torch.no_grad()
    def evaluate(self, samples: Samples, prefix: str) -> dict[str, float]:
        """Loss, accuracy and balanced accuracy of a split; empty where it has no images."""
        if len(samples.rows) == 0:
            return {}
        self.model.eval()
        logits = []
        for start in range(0, len(samples.rows), EVALUATION_BATCH):
            images = self.pixels.batch(samples.rows[start : start + EVALUATION_BATCH]).to(self.device)
            with autocast(self.device, self.options.precision):
                logits.append(self.model(images).float())
        scores = torch.cat(logits)
        targets = samples.targets.to(self.device)
        right = (scores.argmax(1) == targets).double()
        recalls = [right[targets == c].mean() for c in targets.unique()]
        return {
            f"{prefix}loss": round(float(self.loss(scores, targets)), 6),
            f"{prefix}accuracy": round(float(right.mean()), 6),
            f"{prefix}balanced_accuracy": round(float(torch.stack(recalls).mean()), 6),
        }

    def _keep(self, row: dict[str, Any]) -> None:
        self.state.epoch = row["epoch"]
        self.state.history.append(row)
        score = (row.get("val_balanced_accuracy", 0.0), -row.get("val_loss", 0.0))
        if score >= self.state.best_score:
            self.state.best_score, self.state.best_epoch = score, row["epoch"]
            self.state.best = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}

    def _save(
        self, phase: str, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
    ) -> None:
        with atomic(self._file) as stream:
            torch.save(
                {
                    "phase": phase,
                    "model": self.model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": {k: v for k, v in schedule.state_dict().items() if isinstance(v, int | float | list)},
                    "state": vars(self.state),
                },
                stream,
            )
            stream.flush()
            os.fsync(stream.fileno())
