"""Gradient-boosted trees: XGBoost with early stopping, on features that are read from disk in batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from scipy import special
from sklearn.utils.class_weight import compute_sample_weight

from wbctool.console import Progress
from wbctool.device import pick_device
from wbctool.errors import DeviceError, UsageProblem
from wbctool.fusing.feature_table import FeatureReader
from wbctool.fusing.options import BoostingOptions
from wbctool.pipeline.signals import DeferredSignals

BATCH_ROWS = 65_536  # rows read from disk at once
# Small trees with few columns each: deep features of training images separate the classes too well.
DEFAULTS: dict[str, Any] = {
    "max_depth": 3,
    "learning_rate": 0.05,
    "subsample": 0.7,
    "colsample_bytree": 0.2,
    "min_child_weight": 1.0,
    "reg_lambda": 1.0,
    "max_bin": 256,
}
_ROUNDS_WITHOUT_VALIDATION = 200


@dataclass(frozen=True)
class Samples:
    """Images that trees are trained or validated on."""

    rows: np.ndarray  # of the feature table, (n,)
    targets: np.ndarray  # class numbers, (n,)
    start: np.ndarray | None = None  # margins that trees start from, (n, classes)

    def take(self, indices: np.ndarray | slice) -> Samples:
        """Return some of the samples."""
        return Samples(self.rows[indices], self.targets[indices], None if self.start is None else self.start[indices])


@dataclass
class BoostingResult:
    """Trees and how they were grown; loss and accuracy are on validation at the best round, NaN without validation."""

    booster: xgboost.Booster  # the trees up to the best round
    rounds: int  # their number; 0 where no tree improves on the start
    history: list[dict[str, Any]]  # for each round `epoch`, `phase`, `train_loss`, `val_loss` and accuracies
    loss: float
    accuracy: float


def boost(
    features: FeatureReader,
    train: Samples,
    val: Samples,
    classes: int,
    options: BoostingOptions,
    *,
    significant: bool = False,
    title: str = "trees",
    quiet: bool = True,
) -> BoostingResult:
    """Grow trees on training images until the validation loss no longer falls; `val` may be empty.

    With `significant`, trees are kept only if they improve on the start by more than a standard error.

    Raises:
        DeviceError: memory does not suffice, or the GPU fails.
    """
    rounds = options.rounds if len(val.rows) else min(options.rounds, _ROUNDS_WITHOUT_VALIDATION)
    try:
        with DeferredSignals(once=False) as signals:  # XGBoost loses exceptions that are raised in its callbacks
            matrices = {"train": _matrix(features, train, options)}
            if len(val.rows):
                matrices["val"] = _matrix(features, val, options, matrices["train"])
        signals.raise_received()
        with Progress(f"xgboost-fuse: {title}", "rounds", quiet, rounds) as progress:
            booster, history = _train(matrices, classes, options, rounds, progress)
    except xgboost.core.XGBoostError as error:
        if any(word in str(error).lower() for word in ("memory", "bad_alloc", "cuda")):
            raise DeviceError(
                f"XGBoost on {options.device}: {_reason(error)}; give --device cpu, more memory, or fewer features"
            ) from None
        raise
    if "val" not in matrices:
        return BoostingResult(booster, len(history), history, float("nan"), float("nan"))
    best = booster.best_iteration
    booster = booster[: best + 1]
    if val.start is not None:
        losses = _log_losses(val.start, val.targets)
        gain = losses - _log_losses(booster.predict(matrices["val"], output_margin=True), val.targets)
        if gain.mean() <= significant * gain.std() / np.sqrt(len(gain)):
            empty = xgboost.train(booster_parameters(options, classes), matrices["train"], num_boost_round=0)
            accuracy = (val.start.argmax(1) == val.targets).mean()
            return BoostingResult(empty, 0, history, float(losses.mean()), float(accuracy))
    return BoostingResult(booster, best + 1, history, history[best]["val_loss"], history[best]["val_accuracy"])


def booster_parameters(options: BoostingOptions, classes: int) -> dict[str, Any]:
    return {
        **DEFAULTS,
        **options.parameters,
        "objective": "multi:softprob",
        "num_class": classes,
        "eval_metric": ["merror", "mlogloss"],  # the last one stops
        "tree_method": "hist",
        "device": str(pick_device(options.device)),
        "seed": options.seed,
        "verbosity": 0,
        **({"nthread": options.jobs} if options.jobs else {}),
    }


def check_parameters(options: BoostingOptions) -> None:
    """Refuse, by a `UsageProblem`, parameters that XGBoost does not know, before anything is computed."""
    data = xgboost.DMatrix(np.array([[0.0], [1.0]], np.float32), np.array([0, 1]))
    cpu = options.model_copy(update={"device": "cpu"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            xgboost.train({**booster_parameters(cpu, 2), "verbosity": 1}, data, num_boost_round=1)
        except xgboost.core.XGBoostError as error:
            raise UsageProblem(f"--set: XGBoost cannot use it: {_reason(error)}") from None
    for warning in caught:
        if "are not used" in str(warning.message):
            unknown = str(warning.message).split("{")[-1].split("}")[0].replace('"', "").strip()
            raise UsageProblem(f"--set {unknown}: XGBoost knows no such parameter (see its page on parameters)")


def _train(
    matrices: dict[str, xgboost.QuantileDMatrix],
    classes: int,
    options: BoostingOptions,
    rounds: int,
    progress: Progress,
) -> tuple[xgboost.Booster, list[dict[str, Any]]]:
    log: dict[str, Any] = {}
    callbacks: list[xgboost.callback.TrainingCallback] = [_ShowProgress(progress)]
    if "val" in matrices:
        early = xgboost.callback.EarlyStopping(rounds=options.patience, data_name="val", metric_name="mlogloss")
        callbacks.append(early)
    booster = xgboost.train(
        booster_parameters(options, classes),
        matrices["train"],
        num_boost_round=rounds,
        evals=[(matrix, split) for split, matrix in matrices.items()],
        evals_result=log,
        callbacks=callbacks,
        verbose_eval=False,
    )
    history: list[dict[str, Any]] = []
    for number in range(len(log["train"]["mlogloss"])):
        row: dict[str, Any] = {"epoch": number + 1, "phase": "boosting"}
        for split, values in log.items():
            row[f"{split}_loss"] = round(values["mlogloss"][number], 6)
            row[f"{split}_accuracy"] = round(1 - values["merror"][number], 6)
        history.append(row)
    return booster, history


class _ShowProgress(xgboost.callback.TrainingCallback):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def after_iteration(self, model: Any, epoch: int, evals_log: dict[str, Any]) -> bool:
        losses = evals_log.get("val", evals_log["train"])["mlogloss"]
        self._progress.step(detail=f"loss {losses[-1]:.4f}")
        return False


def class_weights(targets: np.ndarray, weighting: str) -> np.ndarray:
    """Return the weight of each image: 1, or with `balanced` n / (occurring classes × images of its class)."""
    if weighting == "none":
        return np.ones(len(targets), np.float32)
    return compute_sample_weight("balanced", targets).astype(np.float32)


def _matrix(
    features: FeatureReader, samples: Samples, options: BoostingOptions, like: xgboost.QuantileDMatrix | None = None
) -> xgboost.QuantileDMatrix:
    """Sort features into XGBoost's bins, or into those of another matrix; values are read in batches and not kept."""
    # validation is unweighted, as users meet its loss
    weights = class_weights(samples.targets, options.class_weights if like is None else "none")
    bins = {**DEFAULTS, **options.parameters}["max_bin"]
    batches = _Batches(features, samples, weights)
    return xgboost.QuantileDMatrix(batches, max_bin=int(bins), ref=like, missing=np.nan, nthread=options.jobs or None)


class _Batches(xgboost.DataIter):
    def __init__(self, features: FeatureReader, samples: Samples, weights: np.ndarray) -> None:
        self._features, self._samples, self._weights = features, samples, weights
        self._next = 0
        super().__init__()

    def next(self, input_data: Callable[..., None]) -> bool:
        if self._next >= len(self._samples.rows):
            return False
        part = slice(self._next, self._next + BATCH_ROWS)
        self._next += BATCH_ROWS
        batch = self._samples.take(part)
        start = {} if batch.start is None else {"base_margin": batch.start}
        rows, names = self._features.read(batch.rows), list(self._features.names)
        input_data(data=rows, label=batch.targets, weight=self._weights[part], feature_names=names, **start)
        return True

    def reset(self) -> None:
        self._next = 0


def _log_losses(margins: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Compute the log loss of each image, (n,), from margins (n, classes)."""
    return -special.log_softmax(margins.astype(np.float64), axis=1)[np.arange(len(margins)), targets]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.split("Check failed:")[-1].split("Stack trace")[0].strip()[:200]
