"""The phases of a training, the optimiser and the learning-rate schedule of each, and averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from wbctool.modeling.classifier import Classifier
from wbctool.training.recipe import Recipe


@dataclass(frozen=True)
class Phase:
    """A phase of a training; `unfreeze` says which layers of the backbone learn, as the recipe does."""

    name: str
    epochs: int
    unfreeze: str
    schedule: str

    @property
    def is_frozen(self) -> bool:
        """Whether the backbone learns nothing."""
        return self.name == "frozen"


def phases_of(recipe: Recipe) -> list[Phase]:
    """Return the frozen phase and the fine-tuning after it, either of which may have no epochs."""
    frozen = min(recipe.frozen_epochs, recipe.epochs)
    return [
        Phase("frozen", frozen, "none", recipe.frozen_schedule),
        Phase("fine-tune", recipe.epochs - frozen, recipe.unfreeze, recipe.schedule),
    ]


def make_optimizer(model: nn.Module, recipe: Recipe, frozen: bool) -> torch.optim.Optimizer:
    """Return Adam or AdamW over the parameters that learn; biases and normalisations are not decayed.

    Adam's decay is added to the gradient, AdamW's is apart from it (Loshchilov and Hutter 2019). With `lr_depth` under
    1, learning rates fall from the head to the first layer by even factors, down to that fraction.
    """
    name = recipe.frozen_optimizer if frozen else recipe.optimizer
    lr = recipe.frozen_lr if frozen else recipe.lr
    decay = recipe.frozen_weight_decay if frozen else recipe.weight_decay
    depths = model.depths() if recipe.lr_depth < 1 and not frozen and isinstance(model, Classifier) else {}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for parameter_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        # tenths: a group for each tensor would make each step slow
        factor = recipe.lr_depth ** (1 - round(depths.get(parameter_name, 1.0), 1))
        key = (lr * factor, decay if parameter.ndim > 1 else 0.0)
        group = groups.setdefault(key, {"params": [], "lr": key[0], "weight_decay": key[1]})
        group["params"].append(parameter)
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return optimizer(list(groups.values()), lr=lr)


class Schedule:
    """The learning rate in the course of a phase of so many steps; the optimiser's learning rates are its peaks.

    `one-cycle` rises to the peak and falls to almost zero (Smith and Topin 2018); `cosine` falls from the peak to
    `lr_floor` (Loshchilov and Hutter 2017, eq. 5, one cycle); both change it after each step. `plateau` multiplies it
    by `plateau_factor` where the validation loss has not fallen for `plateau_patience` epochs; `constant` keeps it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, name: str, steps: int, recipe: Recipe) -> None:
        self.name = name
        self.optimizer = optimizer
        peaks = [group["lr"] for group in optimizer.param_groups]
        self.torch: lr_scheduler.LRScheduler
        if name == "one-cycle":
            self.torch = lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps + 1)
        elif name == "cosine":
            self.torch = lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), eta_min=recipe.lr_floor)
        elif name == "plateau":
            self.torch = lr_scheduler.ReduceLROnPlateau(
                optimizer,
                factor=recipe.plateau_factor,
                patience=recipe.plateau_patience,
                min_lr=min(recipe.lr_floor, *peaks),
            )
        else:
            self.torch = lr_scheduler.LambdaLR(optimizer, lambda _step: 1.0)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the head."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def after_step(self) -> None:
        """Update the learning rate after a step."""
        if self.name in ("one-cycle", "cosine"):
            self.torch.step()

    def after_epoch(self, validation_loss: float | None) -> None:
        """Update the learning rate after an epoch; without a validation loss `plateau` keeps it."""
        if isinstance(self.torch, lr_scheduler.ReduceLROnPlateau) and validation_loss is not None:
            self.torch.step(validation_loss)

    def state(self) -> dict[str, Any]:
        """Return the state as numbers only, so that it can be read without pickle."""
        return {k: v for k, v in self.torch.state_dict().items() if isinstance(v, int | float | list | type(None))}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.torch.load_state_dict({**self.torch.state_dict(), **state})


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
