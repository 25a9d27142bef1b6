"""What a training makes, on which splits, and with which means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from wbctool.errors import UsageProblem
from wbctool.modeling.architecture import EnsembleMethod
from wbctool.records import ERROR, Record
from wbctool.records.assignment import parse_ratio
from wbctool.records.splits import add_folds, add_splits

RATIO = "70/15/15"
VALIDATION = 0.1  # fraction of the training images that validates, where the ratio has no val
ProbeMethod = Literal["linear", "knn"]


@dataclass(frozen=True)
class TrainingOptions:
    """The means of a training; none of them changes what is learnt.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        jobs: threads that decode, 0 for one per core.
        cache_gb: gigabytes of decoded images to keep on the disk; None for what it holds.
        overwrite: train again where a run folder exists.
        compiled: run the network through `torch.compile`.
        tensorboard: also write events for TensorBoard.
        quiet: print nothing on stderr but failures.
    """

    device: str = "auto"
    jobs: int = 0
    cache_gb: float | None = None
    overwrite: bool = False
    compiled: bool = False
    tensorboard: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class ModelPlan:
    """What is made, where it is not one network trained in phases.

    Attributes:
        probe: `linear` or `knn` on frozen features.
        ensemble: `average` or `cbam` of the members.
        members: run folders.

    Raises:
        UsageProblem: a name is unknown, or the choices exclude each other.
    """

    probe: ProbeMethod | None = None
    ensemble: EnsembleMethod | None = None
    members: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for value, choices, option in (
            (self.probe, get_args(ProbeMethod), "--probe"),
            (self.ensemble, get_args(EnsembleMethod), "--ensemble"),
        ):
            if value is not None and value not in choices:
                raise UsageProblem(f"{option} {value}: choose from {', '.join(choices)}")
        if self.probe and self.ensemble:
            raise UsageProblem("--probe and --ensemble do not go together")
        if self.ensemble and len(self.members) < 2:
            raise UsageProblem("--ensemble: give two run folders or more before the images")
        if self.members and not self.ensemble:
            raise UsageProblem(f"{self.members[0]} is a run folder; --ensemble average or cbam makes one of several")


@dataclass(frozen=True)
class SplitPlan:
    """Which new splits are made; none by default.

    Attributes:
        folds: number of folds of a cross-validation; one tests, the next validates.
        repeats: number of trainings with new splits by `ratio`, the seed counted up.
        ratio: of the repeats, train/val/test, or train/test, of which a tenth of train then validates.

    Raises:
        UsageProblem: a value is out of its range, or they exclude each other.
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
        """Whether there is one training only, on the splits of the records."""
        return self.folds is None and self.repeats is None

    def datasets(self, records: Sequence[Record], seed: int) -> Iterator[tuple[str, int, list[Record]]]:
        """Yield the name, the seed and the records of each training.

        Args:
            records: labelled or not; their splits are replaced.
            seed: of the first training.
        """
        records = [record for record in records if record["schema"] != ERROR and record.get("label") is not None]
        if self.folds is not None:
            for fold in range(1, self.folds + 1):
                yield f"fold-{fold}", seed, add_folds(records, self.folds, fold, seed)
        for number in range(self.repeats or 0):
            yield f"repeat-{number + 1}", seed + number, add_splits(records, self._fractions(), seed + number)

    def _fractions(self) -> dict[str, float]:
        fractions = parse_ratio(self.ratio or RATIO)
        if "val" not in fractions:
            train = fractions["train"]
            fractions = {"train": (1 - VALIDATION) * train, "val": VALIDATION * train, "test": fractions["test"]}
        return fractions
