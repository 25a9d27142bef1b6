"""What a training makes, on which splits, and with which means."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from pydantic import model_validator

from wbctool.errors import UsageProblem
from wbctool.modeling.architecture import EnsembleMethod
from wbctool.pipeline.parameters import Parameters, parameter

RATIO = "70/15/15"
_several = partial(parameter, None, panel="Several runs")


@dataclass(frozen=True)
class TrainingOptions:
    """The means of a training; none of them changes what is learnt.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        jobs: threads that decode, 0 for one per core.
        cache_gb: gigabytes of decoded images to keep on the disk; None for what it holds.
        overwrite: train again where a run folder exists.
        compile: run the network through `torch.compile`.
        tensorboard: also write events for TensorBoard.
        quiet: print nothing on stderr but failures.
    """

    device: str = "auto"
    jobs: int = 0
    cache_gb: float | None = None
    overwrite: bool = False
    compile: bool = False
    tensorboard: bool = False
    quiet: bool = False


class TrainingPlan(Parameters):
    """What is made, where it is not one network trained in phases on the splits of the records.

    Of `folds`, one tests and the next validates. `repeats` count up the seed; where their `ratio` is train/test, a
    tenth of train validates.
    """

    probe: Literal["linear", "knn"] | None = _several("Fit only a classifier on frozen features.")
    ensemble: EnsembleMethod | None = _several("Make one of several runs.")
    folds: int | None = _several("Cross-validate, into RUN/fold-I.", form="K", low=3)
    repeats: int | None = _several("New splits each time, RUN/repeat-I.", low=1)
    ratio: str | None = _several(f"Of --repeats. ({RATIO})", form="TRAIN/VAL/TEST")

    @model_validator(mode="after")
    def _check(self) -> TrainingPlan:
        if self.probe and self.ensemble:
            raise UsageProblem("--probe and --ensemble do not go together")
        if self.folds is not None and self.repeats is not None:
            raise UsageProblem("--folds and --repeats do not go together")
        if self.ratio is not None and self.repeats is None:
            raise UsageProblem("--ratio goes with --repeats; for one training use `wbctool split`")
        return self
