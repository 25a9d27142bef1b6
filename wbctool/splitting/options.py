"""How records are split."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import model_validator

from wbctool.errors import UsageProblem
from wbctool.pipeline.parameters import Parameters, parameter
from wbctool.records import SPLITS, Record

_RATIO = "70/15/15"


class SplitOptions(Parameters):
    """How records are split: by a ratio, or into folds."""

    ratio: str | None = parameter(None, f"Fractions; two numbers are train/test. ({_RATIO})", form="TRAIN/VAL/TEST")
    folds: int | None = parameter(None, "K folds in place of --ratio.", form="K")
    fold: int | None = parameter(None, "With --folds: the fold that tests. (1)", form="I")
    near_duplicates: bool = parameter(False, "Compare the images, and keep copies of one in one split.")
    allow_synthetic: bool = parameter(
        False, "Take composites in validation and test.", panel="Labels and groups", flags=("--allow-synthetic",)
    )
    seed: int = parameter(0, "Random seed.", low=0, panel="Running")

    @model_validator(mode="after")
    def _check(self) -> SplitOptions:
        from wbctool.records.splits import check_folds, parse_ratio  # help needs no NumPy

        parse_ratio(self.ratio or _RATIO)
        if self.folds is None and self.fold is not None:
            raise UsageProblem("--fold goes with --folds")
        if self.folds is not None and self.ratio is not None:
            raise UsageProblem("--folds takes the place of --ratio; give one of them")
        if self.folds is not None:
            check_folds(self.folds, self.fold or 1)
        return self

    @property
    def names(self) -> list[str]:
        """The splits that are made."""
        from wbctool.records.splits import parse_ratio

        fractions = parse_ratio(self.ratio or _RATIO)
        return [name for name in SPLITS if self.folds or fractions.get(name)]

    def apply(self, records: Sequence[Record]) -> list[Record]:
        """Return the records with their splits; error records as they are."""
        from wbctool.records.splits import add_folds, add_splits, parse_ratio

        if self.folds is not None:
            return add_folds(records, self.folds, self.fold or 1, self.seed)
        return add_splits(records, parse_ratio(self.ratio or _RATIO), self.seed)
