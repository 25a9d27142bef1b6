"""Training in several processes, as `torchrun` starts them; one alone needs nothing of it."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from wbctool.errors import UsageProblem


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


class Processes:
    """The processes of one training, by Accelerate; all of them see the same files.

    Attributes:
        number: of this one, from 0.
        count: of all.
        device: that of this process where there are several, else None.

    Raises:
        UsageProblem: they cannot find each other.
    """

    def __init__(self, device_name: str) -> None:
        self.number, self.count = 0, int(os.environ.get("WORLD_SIZE", "1"))
        self.device: torch.device | None = None
        self._accelerator = None
        if self.count == 1:
            return
        from accelerate import Accelerator

        try:
            self._accelerator = Accelerator(cpu=device_name == "cpu" or not torch.cuda.is_available())
        except (RuntimeError, ValueError) as error:
            raise UsageProblem(f"torchrun: the {self.count} processes cannot start together ({error})") from None
        self.number = self._accelerator.process_index
        self.device = self._accelerator.device

    @property
    def is_main(self) -> bool:
        """Whether this one prints and writes."""
        return self.number == 0

    def wait(self) -> None:
        """Until all have come here."""
        if self._accelerator:
            self._accelerator.wait_for_everyone()

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model, its gradients averaged over all processes."""
        if not self._accelerator:
            return model
        from torch.nn.parallel import DistributedDataParallel

        ids = [self.device.index] if self.device and self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids)

    def sum(self, values: Tensor) -> Tensor:
        """Values added up over all processes."""
        return self._accelerator.reduce(values, "sum") if self._accelerator else values

    def align(self, model: nn.Module) -> None:
        """Give all processes the batch statistics of the first."""
        if self._accelerator:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)
