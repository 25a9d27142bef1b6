"""Where features come from: networks, and the morphology of cells."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbctool import __version__
from wbctool.device import cores, pick_device, pick_precision
from wbctool.errors import ImageError, InputError
from wbctool.fusing.options import FusionOptions
from wbctool.fusing.store import Row
from wbctool.imaging.inputs import to_input
from wbctool.measuring import morphology
from wbctool.measuring.batches import Measuring
from wbctool.modeling.classifier import resized
from wbctool.modeling.predictor import deep_features
from wbctool.modeling.run_folder import Run, digest_of, load, trained_precision
from wbctool.records import Record


class Network:
    """Pooled features of a run's network, followed by its probabilities; a `Source`.

    Args:
        run: loaded on its device.
        device: that device.
        precision: `float32` or `bf16`.
        first_size: side to which images are scaled before the network's own, pixels: the largest of all networks, as
            in a fused model; 0 for the network's own.
    """

    batch = 64
    uses_masks = False

    def __init__(self, run: Run, device: torch.device, precision: str, first_size: int = 0) -> None:
        self.run, self._device, self._precision = run, device, precision
        self._network = run.model  # fused models are refused before
        self.name = f"features of {run.path.name or run.path}"
        self.digest = digest_of(run.path, "model.json", "weights.safetensors")
        architecture = run.model.architecture
        self.identity: dict[str, Any] = {
            "network": self.digest,
            "precision": precision,
            "device": device.type,
            "version": __version__,
        }
        self._size = architecture.size
        self._first_size = max(first_size, self._size)
        if self._first_size != self._size:
            self.identity["through"] = self._first_size
        blank = torch.zeros(1, 3, self._size, self._size, dtype=torch.uint8, device=device)
        self.features = deep_features(self._network, blank, precision)[0].shape[1]
        self.width = self.features + len(architecture.classes)

    def rows(self, batches: Iterable[Sequence[Record]]) -> Iterator[list[Row]]:
        """See `Source`.

        Raises:
            InputError: the network returns NaN or infinity.
        """
        with ThreadPoolExecutor(max_workers=min(16, cores())) as pool:
            waiting: deque[tuple[Sequence[Record], list[Future[np.ndarray | str]]]] = deque()
            for batch in batches:
                waiting.append((batch, [pool.submit(self._decoded, record["path"]) for record in batch]))
                if len(waiting) > 1:  # one batch is decoded while the one before is computed
                    yield self._computed(*waiting.popleft())
            while waiting:
                yield self._computed(*waiting.popleft())

    def _decoded(self, path: str) -> np.ndarray | str:
        try:
            return to_input(path, self._first_size)
        except ImageError as error:
            return str(error)

    def _computed(self, batch: Sequence[Record], decoded: Sequence[Future[np.ndarray | str]]) -> list[Row]:
        rows: list[Row] = [image.result() for image in decoded]
        good = [index for index, row in enumerate(rows) if not isinstance(row, str)]
        if good:
            images = torch.from_numpy(np.stack([rows[index] for index in good])).permute(0, 3, 1, 2)
            images = resized(images.to(self._device), self._size)
            values = np.concatenate(deep_features(self._network, images, self._precision), axis=1)
            for index, row in zip(good, values.astype(np.float32), strict=True):
                if not np.isfinite(row).all():
                    raise InputError(
                        f"{self.run.path}: gives NaN or infinity for {batch[index]['path']}; "
                        "give --precision float32, or train it again"
                    )
                rows[index] = row
        return rows


def load_networks(paths: Sequence[Path], options: FusionOptions) -> tuple[list[Run], list[Network], FusionOptions]:
    """Return runs, their networks as a fused model has them, and the options with the networks' precision.

    Raises:
        InputError: a run cannot be loaded, or is fused itself.
    """
    device = pick_device(options.settings.device)
    runs = [load(path, device) for path in paths]
    for run in runs:
        if run.model.architecture.trees:
            raise InputError(f"{run.path}: is fused already; give the runs it was made of, see `wbctool info`")
    trained = {trained_precision(run.info) for run in runs}
    is_common = options.precision == "auto" and len(trained) == 1
    precision = pick_precision(trained.pop() if is_common else options.precision, device)
    size = max([run.model.architecture.size for run in runs], default=0)
    options = options.model_copy(update={"precision": precision})
    return runs, [Network(run, device, precision, size) for run in runs], options


class Measures:
    """Measures of cells, NaN for missing ones; a `Source`.

    Args:
        jobs: processes; 0 for one per core.
    """

    name = "morphology"
    batch = 256
    uses_masks = True

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self.identity: dict[str, Any] = {"morphology": list(morphology.names()), "version": __version__}
        self.width = len(morphology.names())

    def rows(self, batches: Iterable[Sequence[Record]]) -> Iterator[list[Row]]:
        """See `Source`."""
        with Measuring(self._jobs) as measuring:
            for batch in batches:
                yield measuring(batch)
