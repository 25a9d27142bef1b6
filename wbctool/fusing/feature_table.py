"""The features of a dataset's images: computed, kept on disk, and read by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wbctool.fusing.options import FusionOptions
from wbctool.fusing.sources import Measures, Network
from wbctool.fusing.store import Source, Store
from wbctool.modeling.fused import FusedArchitecture, feature_matrix, run_names
from wbctool.modeling.run_folder import Run
from wbctool.records import Record

BATCH_ROWS = 4096  # rows that are read and used at once
_SIZE_WITHOUT_NETWORKS = 32  # side of images that no network looks at, pixels


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


def architecture_of(
    runs: Sequence[Run], networks: Sequence[Network], parts: tuple[str, ...], **more: Any
) -> FusedArchitecture:
    """Return the architecture of a model with some kinds of features; without `more` it has no start and no classes."""
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
    measures = [Measures(options.settings.jobs)] if options.morphology else []
    sources: list[Source] = [*networks, *measures]
    for source in sources:
        store = Store(folder, source)
        try:
            rows, failed_here = store.fill(records, quiet)
            blocks.append(_Block(store.matrix(), rows))
        finally:
            store.close()
        failed = {**failed_here, **failed}
    return FeatureTable(networks, failed, blocks[: len(networks)], blocks[-1] if measures else None)
