"""The features of a dataset's images, by networks and measures: computed, kept on disk, and read by row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbctool import __version__
from wbctool.device import cores, pick_device, pick_precision
from wbctool.errors import ImageError, InputError
from wbctool.fusing.options import FusionOptions
from wbctool.fusing.store import Row, RowsOf, Source, Store
from wbctool.imaging.inputs import to_input
from wbctool.measuring import morphology
from wbctool.measuring.batches import Measuring
from wbctool.modeling.classifier import resized
from wbctool.modeling.fused import FusedArchitecture, feature_matrix, run_names
from wbctool.modeling.predictor import deep_features
from wbctool.modeling.run_folder import Run, digest_of, load, trained_precision
from wbctool.pipeline.step import BatchWork, Named
from wbctool.records import Record, error_record

BATCH_ROWS = 4096  # rows that are read and used at once
_SIZE_WITHOUT_NETWORKS = 32  # side of images that no network looks at, pixels


class Network:
    """Pooled features of a run's network, followed by its probabilities; a `Source`.

    Images are first scaled to `first_size` pixels a side, the largest of all networks, as in a fused model, then to the
    network's own.
    """

    batch = 64
    uses_masks = False

    def __init__(self, run: Run, device: torch.device, precision: str, first_size: int) -> None:
        self.run, self._device, self._precision = run, device, precision
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
        self._first_size = first_size
        if first_size != self._size:
            self.identity["through"] = first_size
        blank = torch.zeros(1, 3, self._size, self._size, dtype=torch.uint8, device=device)
        self.features = deep_features(run.model, blank, precision)[0].shape[1]
        self.width = self.features + len(architecture.classes)

    @contextmanager
    def session(self) -> Iterator[RowsOf]:
        """See `Source`."""
        with ThreadPoolExecutor(max_workers=min(16, cores())) as pool:
            yield partial(self._rows, pool)

    def _rows(self, pool: ThreadPoolExecutor, batches: Iterable[Sequence[Record]]) -> Iterator[list[Row]]:
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
            values = np.concatenate(deep_features(self.run.model, images, self._precision), axis=1)
            for index, row in zip(good, values.astype(np.float32), strict=True):
                if not np.isfinite(row).all():
                    raise InputError(
                        f"{self.run.path}: gives NaN or infinity for {batch[index]['path']}; "
                        "give --precision float32, or train it again"
                    )
                rows[index] = row
        return rows


def load_networks(paths: Sequence[Path], options: FusionOptions) -> tuple[list[Network], FusionOptions]:
    """Return the networks of runs, as a fused model has them, and the options with the networks' precision."""
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
    return [Network(run, device, precision, size) for run in runs], options


class Measures:
    """Measures of cells, NaN for missing ones, computed in processes (0 for one per core); a `Source`."""

    name = "morphology"
    batch = 256
    uses_masks = True

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self.identity: dict[str, Any] = {"morphology": list(morphology.names()), "version": __version__}
        self.width = len(morphology.names())

    @contextmanager
    def session(self) -> Iterator[RowsOf]:
        """See `Source`."""
        with Measuring(self._jobs) as measuring:
            yield partial(map, measuring)


@dataclass(frozen=True)
class FeatureReader:
    """Some columns of a feature table."""

    names: Sequence[str]
    read: Callable[[np.ndarray], np.ndarray]  # from rows to features (n, features), float32, NaN for missing ones


@dataclass(frozen=True)
class _Block:
    """The features of one source: its matrix on disk, and the row of each image in it."""

    matrix: np.ndarray
    matrix_rows: np.ndarray

    def take(self, rows: np.ndarray, first_column: int = 0) -> np.ndarray:
        return np.asarray(self.matrix[:, first_column:][self.matrix_rows[rows]])


@dataclass(frozen=True)
class FeatureTable:
    """Features of images; a row is the image's position among the records."""

    networks: Sequence[Network]  # that give deep features and probabilities
    failed: dict[int, str]  # reasons by row, for images that a source could not read
    _network_blocks: Sequence[_Block]
    _measure_block: _Block | None

    def readable(self, rows: Sequence[int]) -> np.ndarray:
        """Return the rows that did not fail."""
        return np.array([row for row in rows if row not in self.failed], np.int64)

    def network_outputs(self, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the deep features (n, width) and the probabilities (n, classes) of each network."""
        outputs = zip(self.networks, (block.take(rows) for block in self._network_blocks), strict=True)
        return [(values[:, : network.features], values[:, network.features :]) for network, values in outputs]

    def probabilities(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the probabilities (n, classes) of each network, without reading anything else."""
        blocks = zip(self.networks, self._network_blocks, strict=True)
        return [block.take(rows, network.features) for network, block in blocks]

    def unmeasured_rows(self) -> list[int]:
        """Return the rows that did not fail, but have no measure at all."""
        block = self._measure_block
        assert block is not None
        rows = self.readable(range(len(block.matrix_rows)))
        batches = np.split(rows, range(BATCH_ROWS, len(rows), BATCH_ROWS))
        return [row for batch in batches for row in batch[np.isnan(block.take(batch)).all(1)].tolist()]

    def measures(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the measures of the cells, (n, measures); None where morphology is not used."""
        return self._measure_block.take(rows) if self._measure_block else None

    def reader(self, architecture: FusedArchitecture) -> FeatureReader:
        """Return the features of a fused model."""
        return FeatureReader(
            [name for name, _ in architecture.features()],
            lambda rows: feature_matrix(architecture.parts, self.network_outputs(rows), self.measures(rows)),
        )


def architecture_of(networks: Sequence[Network], parts: tuple[str, ...], **more: Any) -> FusedArchitecture:
    """Return the architecture of a model with some kinds of features; without `more` it has no start and no classes."""
    runs = [network.run for network in networks]
    about: dict[str, Any] = {
        "fused": "xgboost",
        "members": tuple(run.model.architecture for run in runs),
        "names": run_names([run.path for run in runs]),
        "widths": tuple(network.features for network in networks),
        "parts": parts,
        "start": (),
        "classes": (),
        "size": max([run.model.architecture.size for run in runs], default=_SIZE_WITHOUT_NETWORKS),
    }
    return FusedArchitecture(**{**about, **more})


def compute_table(
    records: Sequence[Record], networks: Sequence[Network], options: FusionOptions, folder: Path, quiet: bool
) -> FeatureTable:
    """Compute the features of images that are not yet kept in the folder."""
    failed: dict[int, str] = {}
    blocks = []
    for source in _sources(networks, options):
        with closing(Store(folder, source)) as store:
            rows, failed_here = store.fill(records, quiet)
            blocks.append(_Block(store.matrix(), rows))
        failed = {**failed_here, **failed}
    return _table(networks, failed, blocks)


class FeatureBatches:
    """Computes the features of images batch by batch, those that are not yet kept in the folder.

    Attributes:
        images: the records so far; the rows of `table()`.
    """

    def __init__(self, networks: Sequence[Network], options: FusionOptions, folder: Path) -> None:
        self.images: list[Record] = []
        self._networks, self._folder = networks, folder
        self._sources = _sources(networks, options)
        self._failed: dict[int, str] = {}
        self._matrix_rows: list[list[np.ndarray]] = [[] for _ in self._sources]
        self._matrices: list[np.ndarray] = []

    @contextmanager
    def session(self) -> Iterator[BatchWork]:
        """See `BatchStep`."""
        with ExitStack() as stack:
            stores = [stack.enter_context(closing(Store(self._folder, source))) for source in self._sources]
            sessions = [stack.enter_context(source.session()) for source in self._sources]
            yield partial(self._compute, list(zip(stores, sessions, self._matrix_rows, strict=True)))
            self._matrices = [store.matrix() for store in stores]

    def _compute(
        self, opened: Sequence[tuple[Store, RowsOf, list[np.ndarray]]], batch: Sequence[Named]
    ) -> list[list[Record]]:
        records, failed = [record for record, _ in batch], dict[int, str]()
        for store, rows_of, matrix_rows in opened:
            rows, failed_here = store.fill_batch(records, rows_of)
            matrix_rows.append(rows)
            failed = {**failed_here, **failed}
        self._failed |= {len(self.images) + index: reason for index, reason in failed.items()}
        self.images += records
        return [
            [error_record(record["id"], record["path"], failed[index]) if index in failed else {}]
            for index, record in enumerate(records)
        ]

    def table(self) -> FeatureTable:
        """Return the features of all images, once the session has ended."""
        none = np.zeros(0, np.int64)
        rows = [np.concatenate([none, *rows]) for rows in self._matrix_rows]
        return _table(self._networks, self._failed, list(map(_Block, self._matrices, rows)))


def _sources(networks: Sequence[Network], options: FusionOptions) -> list[Source]:
    return [*networks, *([Measures(options.settings.jobs)] if options.morphology else [])]


def _table(networks: Sequence[Network], failed: dict[int, str], blocks: Sequence[_Block]) -> FeatureTable:
    count = len(networks)
    return FeatureTable(networks, failed, blocks[:count], blocks[count] if len(blocks) > count else None)
