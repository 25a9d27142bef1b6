"""Several trainings over new splits of the same images: cross-validation and repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wbctool.errors import UsageProblem
from wbctool.records import ERROR, Record
from wbctool.records.assignment import parse_ratio
from wbctool.records.splits import add_folds, add_splits

RATIO = "70/15/15"
VALIDATION = 0.1  # of what is not tested, where a ratio names none


@dataclass(frozen=True)
class Splits:
    """What splits are made.

    Attributes:
        folds: of a cross-validation; one tests, the next validates.
        repeats: with new splits by `ratio`, the seed counted up.
        ratio: train/val/test, or train/test, of which a tenth of train then validates.
    """

    folds: int | None = None
    repeats: int | None = None
    ratio: str | None = None

    def __post_init__(self) -> None:
        if self.folds is not None and self.repeats is not None:
            raise UsageProblem("--folds and --repeats do not go together")
        if self.ratio is not None and self.repeats is None:
            raise UsageProblem("--ratio goes with --repeats; for one training use `wbctool split`")
        if self.folds is not None and self.folds < 3:
            raise UsageProblem(f"--folds {self.folds}: at least 3 (one trains, one validates, one tests)")
        if self.repeats is not None and self.repeats < 1:
            raise UsageProblem(f"--repeats {self.repeats}: at least 1")
        parse_ratio(self.ratio or RATIO)

    @property
    def is_empty(self) -> bool:
        """Whether there is but one training, over the splits there are."""
        return self.folds is None and self.repeats is None

    def over(self, records: Sequence[Record], seed: int) -> Iterator[tuple[str, int, list[Record]]]:
        """Name, seed and records of each training.

        Args:
            records: labelled or not; a split they carry is not kept.
            seed: of the first.
        """
        records = [record for record in records if record["schema"] != ERROR and record.get("label") is not None]
        if self.folds is not None:
            for fold in range(1, self.folds + 1):
                yield f"fold-{fold}", seed, add_folds(records, self.folds, fold, seed)
        for number in range(self.repeats or 0):
            yield f"repeat-{number + 1}", seed + number, add_splits(records, self._shares(), seed + number)

    def _shares(self) -> dict[str, float]:
        shares = parse_ratio(self.ratio or RATIO)
        if "val" not in shares:
            train = shares["train"]
            shares = {"train": (1 - VALIDATION) * train, "val": VALIDATION * train, "test": shares["test"]}
        return shares
