"""Images prepared differently from those that a run was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from wbctool.records import Record, preparation_of


class PreparationCheck:
    """Counts images that were enhanced, segmented or cropped differently from the training images of runs.

    Each run is given by its name and its `model.json`.
    """

    def __init__(self, runs: Iterable[tuple[str, dict[str, Any]]]) -> None:
        self._preparations = {name: info.get("preparation", {}) for name, info in runs}
        self._counts: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Take an image into account."""
        preparation = preparation_of(record)
        for name, expected in self._preparations.items():
            self._counts[name] += preparation != expected

    def warnings(self, advice: str = "") -> list[str]:
        """One line for each run that has such images; `advice` says what to do."""
        return [
            f"{count:,} images were prepared differently from those of {name} (see `wbctool info {name}`){advice}"
            for name, count in self._counts.items()
            if count
        ]
