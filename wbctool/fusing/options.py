"""What people may choose in fusing."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from wbctool.errors import UsageProblem
from wbctool.pipeline.parameters import Parameters, parameter

_TREES = "Trees"
# other names of XGBoost for one parameter; given both, it would take either
_ALIASES = {
    "eta": "learning_rate",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
    "min_split_loss": "gamma",
    "random_state": "seed",
    "n_jobs": "nthread",
}
_RESERVED = (
    *("objective", "num_class", "tree_method", "device", "seed", "nthread", "eval_metric", "base_score", "verbosity"),
    *("multi_strategy", "missing", "enable_categorical"),
)


class BoostingOptions(Parameters):
    """How trees are grown."""

    rounds: int = parameter(2000, "At most; each grows a tree for each class.", low=1, form="N", panel=_TREES)
    patience: int = parameter(50, "Rounds without a lower validation loss.", low=1, form="N", panel=_TREES)
    class_weights: Literal["balanced", "none"] = parameter(
        "balanced", "In training; balanced: all classes weigh the same.", panel=_TREES
    )
    seed: int = parameter(0, "Random seed.", low=0, option=False)
    device: str = parameter("auto", "auto, cpu, cuda or cuda:N.", option=False)
    jobs: int = parameter(0, "Threads, and processes that measure cells; 0 for all cores.", low=0, option=False)
    parameters: dict[str, Any] = parameter({}, "Parameters of XGBoost, each under one name.", option=False)

    @field_validator("parameters")
    @classmethod
    def _one_name_each(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        names = [_ALIASES.get(name, name) for name in parameters]
        for given, name in zip(parameters, names, strict=True):
            if name in _RESERVED:
                raise UsageProblem(f"--set {given}: is set by wbctool itself; leave it out")
            if names.count(name) > 1:
                raise UsageProblem(f"--set {given}: {name} is given twice; leave one out")
        parameters = dict(zip(names, parameters.values(), strict=True))
        if parameters.get("booster", "gbtree") not in ("gbtree", "dart"):
            raise UsageProblem(f"--set booster={parameters['booster']}: choose from gbtree, dart")
        if not isinstance(parameters.get("max_bin", 2), int):
            raise UsageProblem(f"--set max_bin={parameters['max_bin']}: give a whole number")
        return parameters


class FusionOptions(Parameters):
    """What is fused, and how."""

    probabilities: bool = parameter(False, "Also the runs' probabilities as features.")
    morphology: bool = parameter(False, "Also what each cell measures, by its mask.")
    start: Literal["runs", "none"] = parameter("runs", "Correct the runs' prediction, or start from nothing.")
    all_features: bool = parameter(False, "Use all of these, whether validation gains or not.")
    tune: int = parameter(0, "Try N settings by cross-validation.", low=0, form="N", panel=_TREES)
    precision: str = parameter("auto", "Of the networks: auto (as trained), float32 or bf16.", option=False)
    settings: BoostingOptions = parameter(BoostingOptions(), "How trees are grown.", option=False)

    @model_validator(mode="after")
    def _check(self) -> FusionOptions:
        if self.start == "none" and self.all_features:
            raise UsageProblem("--start none: uses all features by itself; leave --all-features out")
        return self

    def with_jobs(self, jobs: int) -> FusionOptions:
        """Return the options with a number of threads and processes, unless it is 0."""
        settings = self.settings.model_copy(update={"jobs": jobs or self.settings.jobs})
        return self.model_copy(update={"settings": settings})

    def parts(self, has_runs: bool) -> tuple[str, ...]:
        """Return the kinds of features that are asked for, of `modeling.fused.PARTS`."""
        from wbctool.modeling.fused import DEEP, MORPHOLOGY, PROBABILITIES

        wanted = {DEEP: has_runs, PROBABILITIES: self.probabilities and has_runs, MORPHOLOGY: self.morphology}
        return tuple(part for part, is_wanted in wanted.items() if is_wanted)
