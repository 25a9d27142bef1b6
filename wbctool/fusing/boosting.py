"""Trees over features: XGBoost with early stopping, over batches that are read from disk."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wbctool.console import Progress
from wbctool.errors import DeviceError, UsageProblem

if TYPE_CHECKING:
    from xgboost import Booster, QuantileDMatrix

ROWS_AT_ONCE = 65_536  # rows read from disk together
# Small trees with few columns each: a network's features have seen the training images, and tell them apart too well.
DEFAULTS: dict[str, Any] = {
    "max_depth": 3,
    "learning_rate": 0.05,
    "subsample": 0.7,
    "colsample_bytree": 0.2,
    "min_child_weight": 1.0,
    "reg_lambda": 1.0,
    "max_bin": 256,
}
# names of one parameter; of two given XGBoost would take either
_ALIASES = {
    "eta": "learning_rate",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
    "min_split_loss": "gamma",
    "random_state": "seed",
    "n_jobs": "nthread",
}
_OURS = (
    *("objective", "num_class", "tree_method", "device", "seed", "nthread", "eval_metric", "base_score", "verbosity"),
    *("multi_strategy", "missing", "enable_categorical"),
)
_WITHOUT_VALIDATION = 200  # rounds
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Settings:
    """How trees are grown.

    Attributes:
        rounds: at most; each round grows a tree for each class.
        patience: rounds without a lower validation loss, after which it ends.
        class_weights: `none`, or `balanced`: every class weighs the same.
        seed: of all chance.
        device: `cpu`, `cuda` or `cuda:N`.
        jobs: threads, 0 for one per core.
        parameters: XGBoost's own, over `DEFAULTS`; kept under one name each.
    """

    rounds: int = 2000
    patience: int = 50
    class_weights: str = "balanced"
    seed: int = 0
    device: str = "cpu"
    jobs: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.class_weights not in ("none", "balanced"):
            raise UsageProblem(f"--class-weights {self.class_weights}: choose from none, balanced")
        named = [_ALIASES.get(name, name) for name in self.parameters]
        for given, name in zip(self.parameters, named, strict=True):
            if name in _OURS:
                raise UsageProblem(f"--set {given}: is set by wbctool itself; leave it out")
            if named.count(name) > 1:
                raise UsageProblem(f"--set {given}: {name} is given twice; leave one out")
        parameters = dict(zip(named, self.parameters.values(), strict=True))
        if parameters.get("booster", "gbtree") not in ("gbtree", "dart"):
            raise UsageProblem(f"--set booster={parameters['booster']}: choose from gbtree, dart")
        if not isinstance(parameters.get("max_bin", 2), int):
            raise UsageProblem(f"--set max_bin={parameters['max_bin']}: give a whole number")
        object.__setattr__(self, "parameters", parameters)

    def booster(self, classes: int) -> dict[str, Any]:
        """As XGBoost takes them."""
        return {
            **DEFAULTS,
            **self.parameters,
            "objective": "multi:softprob",
            "num_class": classes,
            "eval_metric": ["merror", "mlogloss"],  # the last one stops
            "tree_method": "hist",
            "device": self.device,
            "seed": self.seed,
            "verbosity": 0,
            **({"nthread": self.jobs} if self.jobs else {}),
        }


@dataclass(frozen=True)
class Part:
    """Images that trees are grown or checked on.

    Attributes:
        rows: their places in the table of features, (n,).
        targets: class numbers, (n,).
        start: margins that trees start from, (n, classes); None for none.
    """

    rows: np.ndarray
    targets: np.ndarray
    start: np.ndarray | None = None

    def at(self, places: np.ndarray) -> Part:
        """Some of them."""
        return Part(self.rows[places], self.targets[places], None if self.start is None else self.start[places])


@dataclass
class Grown:
    """What came of it.

    Attributes:
        booster: its trees up to the best round.
        rounds: how many these are; 0 where they do not better the start.
        history: of each round `epoch`, `phase`, `train_loss`, `val_loss` and accuracies.
        loss: on validation, at the best round; NaN without validation.
        accuracy: likewise.
    """

    booster: Booster
    rounds: int
    history: list[dict[str, Any]]
    loss: float
    accuracy: float


def grow(
    read: Callable[[np.ndarray], np.ndarray],
    names: Sequence[str],
    train: Part,
    val: Part,
    classes: int,
    settings: Settings,
    quiet: bool = True,
    what: str = "trees",
    wary: bool = False,
) -> Grown:
    """Grow trees on training images until the validation loss no longer falls.

    Args:
        read: gives the features of rows, (n, features), NaN for what is missing.
        names: of the features.
        train: what trees are grown on, and nothing else.
        val: when to stop; may be empty.
        classes: how many.
        settings: how.
        quiet: no progress.
        what: is grown, as progress shows it.
        wary: trees must better the start by more than the standard error of that; else by anything.

    Raises:
        DeviceError: memory does not suffice, or the GPU fails.
    """
    import xgboost

    rounds = settings.rounds if len(val.rows) else min(settings.rounds, _WITHOUT_VALIDATION)
    try:
        with _signals_later():
            known = _matrix(read, names, train, classes, settings)
            held = _matrix(read, names, val, classes, settings, known) if len(val.rows) else None
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        stopping = xgboost.callback.EarlyStopping(rounds=settings.patience, data_name="val", metric_name="mlogloss")
        with Progress(f"xgboost-fuse: {what}", "rounds", quiet, rounds) as progress:
            booster = xgboost.train(
                settings.booster(classes),
                known,
                num_boost_round=rounds,
                evals=[(known, "train"), *([(held, "val")] if held is not None else [])],
                evals_result=found,
                callbacks=[_told(progress), *([stopping] if held is not None else [])],
                verbose_eval=False,
            )
    except xgboost.core.XGBoostError as error:
        text = str(error).lower()
        if "memory" in text or "bad_alloc" in text or "cuda" in text:
            raise DeviceError(
                f"XGBoost on {settings.device}: {_reason(error)}; give --device cpu, more memory, or fewer features"
            ) from None
        raise
    history = _history(found)
    if held is None:
        return Grown(booster, len(history), history, float("nan"), float("nan"))
    best = booster.best_iteration
    loss, right = history[best]["val_loss"], history[best]["val_accuracy"]
    booster = booster[: best + 1]
    if val.start is not None:
        before = _losses(val.start, val.targets)
        gain = before - _losses(booster.predict(held, output_margin=True), val.targets)
        if gain.mean() <= wary * gain.std() / np.sqrt(len(gain)):
            empty = xgboost.train(settings.booster(classes), known, num_boost_round=0)
            return Grown(empty, 0, history, float(before.mean()), float((val.start.argmax(1) == val.targets).mean()))
    return Grown(booster, best + 1, history, loss, right)


def check(settings: Settings) -> None:
    """Refuse parameters that XGBoost does not know, before anything is computed.

    Raises:
        UsageProblem: naming them.
    """
    import warnings

    import xgboost

    small = xgboost.DMatrix(np.array([[0.0], [1.0]], np.float32), np.array([0, 1]))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            xgboost.train({**settings.booster(2), "device": "cpu", "verbosity": 1}, small, num_boost_round=1)
        except xgboost.core.XGBoostError as error:
            raise UsageProblem(f"--set: XGBoost cannot use it: {_reason(error)}") from None
    for warning in told:
        if "are not used" in str(warning.message):
            unknown = str(warning.message).split("{")[-1].split("}")[0].replace('"', "").strip()
            raise UsageProblem(f"--set {unknown}: XGBoost knows no such parameter (see its page on parameters)")


def _losses(margins: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The log loss of each image, (n,), of margins (n, classes)."""
    margins = margins.astype(np.float64)
    logarithms = margins - margins.max(1, keepdims=True)
    logarithms -= np.log(np.exp(logarithms).sum(1, keepdims=True))
    return -logarithms[np.arange(len(margins)), targets]


def weights_of(targets: np.ndarray, how: str) -> np.ndarray:
    """Of each image its weight, mean 1: with `balanced`, n / (classes that occur × images of its class)."""
    if how == "none":
        return np.ones(len(targets), np.float32)
    from sklearn.utils.class_weight import compute_sample_weight

    return compute_sample_weight("balanced", targets).astype(np.float32)


def _matrix(
    read: Callable[[np.ndarray], np.ndarray],
    names: Sequence[str],
    part: Part,
    classes: int,
    settings: Settings,
    like: QuantileDMatrix | None = None,
) -> QuantileDMatrix:
    """Features in XGBoost's bins; the float values are read in batches and not kept."""
    import xgboost

    # validation is not weighted: its loss is what users will meet
    weights = weights_of(part.targets, settings.class_weights if like is None else "none")

    class Batches(xgboost.DataIter):
        def __init__(self) -> None:
            self._at = 0
            super().__init__()

        def next(self, input_data: Callable[..., None]) -> bool:
            if self._at >= len(part.rows):
                return False
            own = slice(self._at, self._at + ROWS_AT_ONCE)
            self._at += ROWS_AT_ONCE
            start = {} if part.start is None else {"base_margin": part.start[own]}
            rows, targets = read(part.rows[own]), part.targets[own]
            input_data(data=rows, label=targets, weight=weights[own], feature_names=list(names), **start)
            return True

        def reset(self) -> None:
            self._at = 0

    bins = {**DEFAULTS, **settings.parameters}["max_bin"]
    threads = {"nthread": settings.jobs} if settings.jobs else {}
    return xgboost.QuantileDMatrix(Batches(), max_bin=int(bins), ref=like, missing=np.nan, **threads)


def _told(progress: Progress) -> Any:
    import xgboost

    class Told(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: dict[str, Any]) -> bool:
            losses = evals_log.get("val", evals_log["train"])["mlogloss"]
            progress.step(detail=f"loss {losses[-1]:.4f}")
            return False

    return Told()


def _history(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for number in range(len(found["train"]["mlogloss"])):
        row: dict[str, Any] = {"epoch": number + 1, "phase": "boosting"}
        for split in ("train", "val"):
            if split in found:
                row[f"{split}_loss"] = round(found[split]["mlogloss"][number], 6)
                row[f"{split}_accuracy"] = round(1 - found[split]["merror"][number], 6)
        rows.append(row)
    return rows


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.split("Check failed:")[-1].split("Stack trace")[0].strip()[:200]


@contextmanager
def _signals_later() -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM for the end: what they raise would be lost, or worse, within XGBoost's own calls."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    met: list[int] = []
    before = {number: signal.signal(number, lambda got, _frame: met.append(got)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if met:
            signal.raise_signal(met[0])
