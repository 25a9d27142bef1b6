"""Training in several processes, as `torchrun` starts them, by torch.distributed; a single one needs nothing of it."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from wbctool.errors import UsageProblem


class Processes:
    """Context of the processes of one training; all of them read the same files.

    `number` is that of this one, from 0, and `device` its device; None where it is alone. Raises UsageProblem where the
    processes cannot connect to each other.
    """

    def __init__(self, device_name: str = "auto") -> None:
        self.number, self.count = 0, int(os.environ.get("WORLD_SIZE", "1"))
        self.device: torch.device | None = None
        if self.count == 1:
            return
        self.device = torch.device("cpu")
        try:
            if device_name != "cpu" and torch.cuda.is_available():
                self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
                torch.cuda.set_device(self.device)
                distributed.init_process_group("nccl", device_id=self.device)
            else:
                distributed.init_process_group("gloo")
        except (RuntimeError, ValueError) as error:
            raise UsageProblem(f"torchrun: the {self.count} processes cannot start together ({error})") from None
        self.number = distributed.get_rank()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if self.count > 1 and kind is None:  # after an error others may still wait here, and would never be met
            distributed.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this one prints and writes."""
        return self.number == 0

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.count > 1:
            distributed.barrier()

    def mine(self, items: np.ndarray) -> np.ndarray:
        """Return the items that this process works on."""
        return items[self.number :: self.count]

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Return the model, its gradients averaged over all processes."""
        if self.count == 1:
            return model
        ids = [self.device.index] if self.device and self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids)

    def sum(self, values: Tensor) -> Tensor:
        """Return values summed over all processes."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def align(self, model: nn.Module) -> None:
        """Give all processes the batch statistics of the first."""
        if self.count > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)
