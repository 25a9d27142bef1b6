"""The features of a dataset's images: computed, kept, and read row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbctool.fusing.sources import Measures, Network
from wbctool.fusing.store import Source, Store
from wbctool.modeling.fused import feature_matrix
from wbctool.records import Record


@dataclass(frozen=True)
class _Block:
    """What one source gave: rows on disk, and which of them is which image's."""

    matrix: np.ndarray
    places: np.ndarray

    def at(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.matrix[self.places[rows]])


@dataclass(frozen=True)
class Table:
    """Features of images, by their place among the records.

    Attributes:
        networks: that see them.
        failed: index → why, of images that a source could not read.
    """

    networks: Sequence[Network]
    failed: dict[int, str]
    _seen: Sequence[_Block]
    _measured: _Block | None

    def seen(self, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each network the features (n, width) and probabilities (n, classes) of images."""
        found = [block.at(rows) for block in self._seen]
        pairs = zip(self.networks, found, strict=True)
        return [(values[:, : network.features], values[:, network.features :]) for network, values in pairs]

    def shares(self, rows: np.ndarray) -> list[np.ndarray]:
        """Of each network the probabilities (n, classes) of images; nothing else is read."""
        pairs = zip(self.networks, self._seen, strict=True)
        return [np.asarray(block.matrix[:, network.features :][block.places[rows]]) for network, block in pairs]

    def measures(self, rows: np.ndarray) -> np.ndarray | None:
        """What their cells measure, (n, measures); None where that was not asked for."""
        return self._measured.at(rows) if self._measured else None

    def reader(self, parts: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
        """Gives the features of rows, (n, features), as the parts of a fused model ask for them."""
        return lambda rows: feature_matrix(parts, self.seen(rows), self.measures(rows))


def tabulate(
    records: Sequence[Record], networks: Sequence[Network], measures: Measures | None, folder: Path, quiet: bool
) -> Table:
    """Compute what is missing of the features of images, and keep it.

    Args:
        records: with absolute paths.
        networks: that see them.
        measures: of their cells; None for none.
        folder: where features are kept.
        quiet: no progress.
    """
    failed: dict[int, str] = {}
    blocks = []
    sources: list[Source] = [*networks, *([measures] if measures else [])]
    for source in sources:
        store = Store(folder, source)
        try:
            places, own = store.fill(records, quiet)
            blocks.append(_Block(store.matrix(), places))
        finally:
            store.close()
        failed = {**own, **failed}
    return Table(networks, failed, blocks[: len(networks)], blocks[-1] if measures else None)
