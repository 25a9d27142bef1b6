"""The device and the precision of networks, free memory, and the cores of the machine.

Commands that need no network count cores, too: torch is imported inside the functions that use it.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from wbctool.errors import DeviceError, UsageProblem, check_choice

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:1`; DeviceError where the machine has no such GPU."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = None
    with suppress(RuntimeError):
        device = torch.device(name)
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageProblem(f"--device {name}: choose auto, cpu or cuda")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise DeviceError(f"--device {name}: no such GPU; give --device cpu, or check nvidia-smi")
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """Return `float32` or `bf16`; `auto` is bf16 where the hardware multiplies it fast."""
    import torch

    check_choice("--precision", name, ("auto", "float32", "bf16"))
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_units = "AVX512" in torch.backends.cpu.get_cpu_capability() and torch.cpu._is_avx512_bf16_supported()
    return "bf16" if has_units and torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def images_at_once(device: torch.device) -> int:
    """Return how many images go through a network together where no gradients are kept.

    On a CPU their feature maps should stay in its cache: 16 are 1.4 times as fast as 64 there.
    """
    return 16 if device.type == "cpu" else 64


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the context in which a network computes in `float32` or `bf16`."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def free_memory(device: torch.device) -> int:
    """Return the bytes of memory that are free on a GPU, or on the machine."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(psutil.virtual_memory().available)


def cores() -> int:
    """Return how many cores this process may use; in a cluster's job, those of the job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
