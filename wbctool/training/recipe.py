"""Everything that can be chosen for a training, each key declared once: recipe, means, and what is made.

A recipe is a flat table; its keys are the options of `wbctool train`, and those that are not are given by `--set`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from wbctool.errors import UsageProblem
from wbctool.modeling import architecture
from wbctool.pipeline.parameters import Parameters, parameter
from wbctool.training.losses import LOSSES, loss_parameters

# What `augment` sets: "full" has the ranges of the attentive-CNN paper, section 2.4, and quarter turns.
_FLIPS = {"flips": 1.0, "turns": 1.0}
_FULL = {**_FLIPS, "rotation": 30.0, "shift": 0.1, "zoom": 0.2, "shear": 0.05, "brightness": 0.2}
_STRONG = {**_FULL, "rotation": 180.0, "zoom": 0.25, "brightness": 0.1, "stain": 0.1}
PRESETS: dict[str, dict[str, float]] = {"none": {}, "flips": _FLIPS, "full": _FULL, "strong": _STRONG}
RATIO = "70/15/15"  # of repeats
Optimizer = Literal["adamw", "adam"]
ScheduleName = Literal["one-cycle", "cosine", "plateau", "constant"]


def _items(value: Any) -> Sequence[Any]:
    """The items of `1,2`, of a list, or of one number."""
    if isinstance(value, str):
        return [item for item in value.split(",") if item]
    return value if isinstance(value, list | tuple) else [value]


def _channels(value: Any, low: float) -> tuple[float, ...] | None:
    """Three numbers from three, or from one."""
    if value is None:
        return None
    try:
        numbers = tuple(float(item) for item in _items(value))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) not in (1, 3) or not all(low <= number <= 1 for number in numbers):
        raise ValueError("give one number or three, in 0 to 1, such as 0.5 or 0.485,0.456,0.406")
    return numbers * 3 if len(numbers) == 1 else numbers


def _widths(value: Any) -> tuple[int, ...]:
    try:
        widths = tuple(int(item) for item in _items(value))
    except (TypeError, ValueError):
        widths = (0,)
    if not all(1 <= width <= architecture.MAX_WIDTH for width in widths):
        raise ValueError("give widths such as 256 or 512,128")
    return widths


Mean = Annotated[architecture.RGB | None, BeforeValidator(partial(_channels, low=0.0))]
Std = Annotated[architecture.RGB | None, BeforeValidator(partial(_channels, low=1e-6))]
Widths = Annotated[tuple[int, ...], BeforeValidator(_widths)]

_model = partial(parameter, panel="Model")
_loss = partial(parameter, panel="Loss")
_fit = partial(parameter, panel="Training")
_augment = partial(parameter, panel="Augmentation", option=False)
_means = partial(parameter, panel="Running")
_several = partial(parameter, None, panel="Several runs")


class _ModelKeys(Parameters):
    backbone: str = _model("efficientnet_b0", "Any timm model, or custom-cnn.", form="NAME")
    backbone_args: dict[str, Any] = _model({}, "Passed to timm.", option=False)
    weights: str = _model("imagenet", "Where the backbone starts.", form="imagenet|none|FILE")
    attention: architecture.Attention = _model("none", "For a convolutional backbone.")
    attention_at: architecture.AttentionAt = _model("head", "After it, each stage, each block.")
    size: int = _model(224, "Side of the input, pixels.", low=16, high=2048)
    pool: architecture.Pool = _model("backbone", "Of the feature map.", option=False)
    norm: architecture.Norm = _model("none", "Of the pooled vector.")
    dense: Widths = _model((), "Widths of hidden layers.", form="N,N")
    dropout: float = _model(0.2, "Before each layer of the head.", low=0, high=0.95)
    side_heads: architecture.SideHeadKind = _model("none", "Further heads half-way.")
    mean: Mean = _model(None, "Of the input. (the weights')", form="M[,M,M]")
    std: Std = _model(None, "Of the input. (the weights')", form="S[,S,S]")
    symmetries: architecture.Symmetries = _model(1, "Of the square, predicted over.")


class _LossKey(Parameters):
    loss: str = _loss("ce", "The loss.", choices=LOSSES.names)


class _LabelKeys(Parameters):
    label_smoothing: float = _loss(0.0, "Fraction of labels spread over all.", low=0, high=0.99)
    class_weights: Literal["none", "balanced", "effective"] = _loss("none", "Weights in the loss.")
    beta: float = _loss(0.999, "Of effective class weights.", low=0, high=0.999999, option=False)
    sampling: Literal["shuffled", "balanced"] = _loss("shuffled", "How an epoch is drawn.")


class _TrainingKeys(Parameters):
    epochs: int = _fit(20, "In all; 0 saves it untrained.", low=0)
    frozen_epochs: int = _fit(1, "Of these, backbone frozen.", low=0)
    frozen_views: int = _fit(1, "Views of each image then; 0: new ones each epoch.", low=0, option=False)
    unfreeze: str = _fit("all", "What learns after.", form="all|last:N|last:N%|stages:N")
    batch_statistics: Literal["learn", "keep"] = _fit("learn", "Of the backbone's normalisations.", option=False)
    batch_size: int = _fit(32, "Images a step, over all devices.", low=2)
    optimizer: Optimizer = _fit("adamw", "After the frozen phase.")
    lr: float = _fit(1e-3, "Peak learning rate after it.", low=0)
    lr_depth: float = _fit(
        1.0, "The first layer's learning rate, as a fraction of the head's.", low=1e-6, high=1, option=False
    )
    schedule: ScheduleName = _fit("one-cycle", "Of the learning rate.")
    weight_decay: float = _fit(0.01, "After the frozen phase.", low=0)
    frozen_optimizer: Optimizer = _fit("adamw", "While frozen.", option=False)
    frozen_lr: float = _fit(3e-3, "Peak learning rate while frozen.", low=0)
    frozen_schedule: ScheduleName = _fit("one-cycle", "While frozen.", option=False)
    frozen_weight_decay: float = _fit(0.01, "While frozen.", low=0, option=False)
    lr_floor: float = _fit(1e-6, "Under which cosine and plateau do not go.", low=0, option=False)
    plateau_patience: int = _fit(3, "Epochs without gain till the learning rate falls.", low=0, option=False)
    plateau_factor: float = _fit(0.5, "By which it falls.", low=1e-6, high=0.999, option=False)
    patience: int = _fit(10, "Epochs without gain; 0: never ends.", low=0)
    best_by: Literal["balanced_accuracy", "loss", "last"] = _fit("balanced_accuracy", "The epoch kept.", option=False)
    ema: float = _fit(0.0, "Decay of averaged weights.", low=0, high=0.999999)
    clip: float = _fit(0.0, "Largest norm of the gradient; 0: any.", low=0, option=False)
    precision: Literal["auto", "float32", "bf16"] = _fit("auto", "Of the network.")
    seed: int = _fit(0, "Of all chance.", low=0, option=False)


class _AugmentationKeys(Parameters):
    augment: str = _augment("flips", "Sets those below.", choices=tuple(PRESETS), option=True)
    flips: bool | None = _augment(None, "Mirrored, both ways.")
    turns: bool | None = _augment(None, "Quarter turns.")
    rotation: float | None = _augment(None, "Up to so many degrees.", low=0, high=180)
    shift: float | None = _augment(None, "Up to this fraction of a side.", low=0, high=1)
    zoom: float | None = _augment(None, "0.2 is from 0.8 to 1.2.", low=0, high=0.9)
    shear: float | None = _augment(None, "0.05 is 5 %.", low=0, high=1)
    brightness: float | None = _augment(None, "0.2 is from 0.8 to 1.2.", low=0, high=1)
    stain: float | None = _augment(None, "Spread of the stains' strength.", low=0, high=1)
    fill: Literal["reflect", "nearest"] = _augment("reflect", "Of what is moved in.")


if TYPE_CHECKING:
    _LossKeys = _LossKey
else:  # each loss brings its parameters along as keys
    _LossKeys = loss_parameters(_LossKey, "Loss")


class Recipe(_AugmentationKeys, _TrainingKeys, _LabelKeys, _LossKeys, _ModelKeys):
    """What is chosen for one training. `epochs` is the total, of which `frozen_epochs` come first.

    The keys are in the order of the bases, from the last to the first; those of the losses come from their registry.
    """

    def replaced(self, **values: Any) -> Recipe:
        """Return a copy with other values, which are not validated."""
        return self.model_copy(update=values)


class TrainingOptions(Parameters):
    """The means of a training; none of them changes what is learnt."""

    cache_gb: float | None = _means(None, "Disk for decoded images. (what is free)", low=0)
    compile: bool = _means(False, "Use torch.compile.")
    tensorboard: bool = _means(False, "Also write events for it.")
    device: str = _means("auto", "Where to compute.", form="auto|cpu|cuda")
    jobs: int = _means(0, "Threads that decode; 0 for all cores.", low=0)
    overwrite: bool = _means(False, "Replace an earlier run.")
    quiet: bool = _means(False, "No progress, no notes.", flags=("--quiet", "-q"))


class TrainingPlan(Parameters):
    """What is made, where it is not one network trained in phases on the splits of the records.

    Of `folds`, one tests and the next validates. `repeats` count up the seed; where their `ratio` is train/test, a
    tenth of train validates.
    """

    probe: Literal["linear", "knn"] | None = _several("Fit only a classifier on frozen features.")
    ensemble: architecture.EnsembleMethod | None = _several("Make one of several runs.")
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
