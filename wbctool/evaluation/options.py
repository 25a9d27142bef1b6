"""What to evaluate of predictions."""

from __future__ import annotations

from dataclasses import dataclass

from wbctool.errors import UsageProblem
from wbctool.records import SPLITS
from wbctool.statistics.metrics import METRICS


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate of predictions.

    Attributes:
        split: `train`, `val`, `test` or `all`; None takes test where records carry splits, else all.
        baseline: of several runs, the name of the one that the others are tested against; None takes the best.
        threshold: confidence below which a prediction is uncertain.
        target_error: find that threshold, on validation where the records hold it, so that this error is left.
        audit: look for what tested images have in common with those of training.
        trained_on: a run folder, or records of the training images; None takes those of the evaluated run folder.
        columns: names of the metrics that tables show; none for the usual ones.
        allow_synthetic: evaluate on composites, too.
    """

    split: str | None = None
    baseline: str | None = None
    threshold: float | None = None
    target_error: float | None = None
    audit: bool = False
    trained_on: str | None = None
    columns: tuple[str, ...] = ()
    allow_synthetic: bool = False

    def check(self) -> None:
        """Check values, and which go together.

        Raises:
            UsageProblem: naming the first option that cannot be used.
        """
        check_split(self.split)
        if self.threshold is not None and self.target_error is not None:
            raise UsageProblem("--threshold and --target-error: give one of them")
        if self.trained_on and not self.audit:
            raise UsageProblem("--trained-on goes with --audit")
        for name in self.columns:
            METRICS.get(name, "--columns")


def check_split(split: str | None) -> None:
    """Check that a split is one of `SPLITS`, `all` or None.

    Raises:
        UsageProblem: it is not.
    """
    if split not in (None, *SPLITS, "all"):
        raise UsageProblem(f"--split {split}: choose from {', '.join(SPLITS)}, all")
