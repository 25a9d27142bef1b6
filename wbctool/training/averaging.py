"""An exponential moving average of a model's weights and batch statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averaged weights of a model (Polyak and Juditsky 1992; Tarvainen and Valpola 2017).

    torch's `AveragedModel` would copy the whole module, and with hooks and several processes that is more to get wrong.

    Args:
        model: whose weights are averaged.
        decay: of the average; in the first steps t it is at most (1 + t) / (10 + t).
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
