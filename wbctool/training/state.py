"""How far a training is, its averaged weights, and the file from which a stopped one goes on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wbctool.errors import InputError
from wbctool.records.storage import atomic
from wbctool.training.schedules import Schedule


class WeightAverage:
    """Averaged weights of a model (Polyak and Juditsky 1992; Tarvainen and Valpola 2017).

    In the first steps t the decay is at most (1 + t) / (10 + t). torch's `AveragedModel` would copy the whole module,
    and with hooks and several processes that is more to get wrong.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.state = {key: value.detach().clone() for key, value in model.state_dict().items()}
        self._live = model.state_dict()  # the tensors themselves, which stay the same throughout
        self._floats = [key for key, value in self._live.items() if value.is_floating_point()]
        self._others = [key for key in self._live if key not in set(self._floats)]

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the model's weights after a step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        averages = [self.state[key] for key in self._floats]
        torch._foreach_lerp_(averages, [self._live[key] for key in self._floats], 1 - decay)
        for key in self._others:
            self.state[key].copy_(self._live[key])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Context in which the model has its averaged weights."""
        weights = {key: value.detach().clone() for key, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.state)
        try:
            yield
        finally:
            self.model.load_state_dict(weights)

    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """Restore an average that was saved."""
        self.steps = steps
        for key, value in state.items():
            self.state[key].copy_(value)


@dataclass
class TrainingState:
    """How far a training is.

    Attributes:
        phase: number of the current phase, from 0.
        epoch: epochs finished, of all phases.
        step: steps finished in the current epoch.
        sums: summed loss, its weight, and correct samples of the current epoch.
        spent: seconds of the current epoch.
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
            self.average.load(saved["average"], saved["averaged"])


def save_state(file: Path, state: TrainingState, model: nn.Module, context: TrainingContext) -> None:
    """Write the state, the model's weights and the context; the file is on the disk when this returns."""
    saved = {"model": model.state_dict(), **context.state_dict(), "state": vars(state)}
    with atomic(file) as stream:
        torch.save(saved, stream)
        stream.flush()
        os.fsync(stream.fileno())


def load_state(file: Path, model: nn.Module) -> tuple[TrainingState, dict[str, Any]]:
    """Read what `save_state` wrote, load the model's weights, and return what restores the `TrainingContext`, too."""
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
        return TrainingState(**{**saved["state"], "best_score": tuple(saved["state"]["best_score"])}), saved
    except Exception as error:  # torch's unpickler raises many types
        raise InputError(f"{file}: damaged ({type(error).__name__}); train again with --overwrite") from None
