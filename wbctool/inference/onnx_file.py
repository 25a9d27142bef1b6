"""A run as one ONNX file: images as they are decoded go in, calibrated probabilities come out."""

from __future__ import annotations

import io
import json
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import nn

from wbctool.errors import DeviceError, UsageProblem
from wbctool.imaging.inputs import ROUNDING, scaled_to
from wbctool.modeling.predictor import probabilities, symmetries
from wbctool.modeling.run_folder import Run, refuse_trees
from wbctool.records.storage import write_bytes
from wbctool.statistics.calibration import scaled

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

WITHIN = 1e-4  # of the run's own probabilities in float32
OPSET = 18
_TRIED = ((240, 320), (97, 61))  # height and width of the images it is checked on: shrunk, and enlarged


class _Whole(nn.Module):
    """From images (n, height, width, 3), RGB, uint8, to probabilities (n, classes), float32."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.model = run.model
        self.size = run.model.architecture.size
        self.views = run.model.architecture.symmetries
        self.temperature = run.temperature or 1.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        small = _resized(images.permute(0, 3, 1, 2).float(), self.size)
        views = torch.cat(symmetries(small, self.views))
        fractions = torch.softmax(self.model(views).float(), 1).unflatten(0, (self.views, -1))
        logits = fractions.mean(0).clamp_min(1e-30).log()
        return torch.softmax(logits / self.temperature, 1)


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """As `imaging.inputs.scaled_to` does: (n, 3, height, width) → (n, 3, size, size), whole numbers as float32."""
    height, width = images.shape[2], images.shape[3]
    (rows, between), (columns, beside) = _weights(height, size), _weights(width, size)
    shrinking = torch.minimum(_length(height), _length(width)) >= size
    down, across = torch.where(shrinking, rows, between), torch.where(shrinking, columns, beside)
    return torch.floor(down.float() @ (images @ across.float().T) + ROUNDING)


def _weights(length: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What each of `size` pixels takes of each of `length`, by area and linearly; each (size, length), float64."""
    step = _length(length) / size
    new, old = torch.arange(size)[:, None].double(), torch.arange(length)[None].double()
    overlap = torch.minimum((new + 1) * step, old + 1) - torch.maximum(new * step, old)
    centre = torch.minimum(((new + 0.5) * step - 0.5).clamp_min(0), _length(length) - 1)
    return overlap.clamp(0, 1) / step, (1 - (centre - old).abs()).clamp_min(0)


def _length(length: int) -> torch.Tensor:
    return torch.scalar_tensor(length, dtype=torch.float64)


def write_onnx(run: Run, path: Path) -> float:
    """Write the file and check it; return the largest difference from the run's own probabilities over random images.

    The run is on the CPU. Raises UsageProblem where the packages are not installed; DeviceError where the file gives
    other probabilities, or the network cannot be written.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        raise UsageProblem("--onnx needs further packages: pip install 'wbctool[onnx]'") from None
    refuse_trees(run, "which are not written as ONNX")
    whole = _Whole(run).eval()
    example = torch.zeros((2, 300, 280, 3), dtype=torch.uint8)
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            axes = {0: torch.export.Dim("n"), 1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
            program = torch.onnx.export(
                whole,
                (example,),
                dynamo=True,
                dynamic_shapes=(axes,),
                opset_version=OPSET,
                verbose=False,
                input_names=["images"],
                output_names=["probabilities"],
            )
            assert program is not None  # with dynamo
            program.save(stream)  # type: ignore[arg-type]  # it takes a stream, too
    except Exception as error:  # of many kinds, all of the exporter
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DeviceError(f"{run.path}: torch cannot write this network as ONNX ({reason})") from None
    model = onnx.load_from_string(stream.getvalue())
    about = {
        "classes": list(run.classes),
        "size": run.model.architecture.size,
        "temperature": run.temperature,
        "preparation": run.info.get("preparation", {}),
    }
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"wbctool.{key}", json.dumps(value)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = max(_difference(run, session, shape) for shape in _TRIED)
    if not worst <= WITHIN:
        raise DeviceError(f"{run.path}: its ONNX file gives other probabilities (by {worst:.2g}); none was written")
    write_bytes(path, data)
    return worst


def _difference(run: Run, session: InferenceSession, shape: tuple[int, int]) -> float:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 12, 16, 3), np.uint8)
    images = np.stack([cv2.resize(one, shape[::-1], interpolation=cv2.INTER_CUBIC) for one in coarse])
    small = np.stack([scaled_to(one, run.model.architecture.size) for one in images])
    own = probabilities(run.model, torch.from_numpy(small).permute(0, 3, 1, 2), "float32")
    theirs = session.run(None, {"images": images})[0]
    return float(np.abs(scaled(own, run.temperature or 1.0) - theirs).max())
