"""The search for parameters of the trees: at random, by grouped cross-validation within the training split."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wbctool.console import note
from wbctool.errors import InputError
from wbctool.fusing.boosting import DEFAULTS, Samples, boost
from wbctool.fusing.feature_table import FeatureReader
from wbctool.fusing.options import BoostingOptions
from wbctool.records.storage import atomic

FOLDS = 5
_TRIAL = ("trial", "loss", "accuracy", "rounds", "parameters")
# name → (lowest, highest, whether a whole number); drawn uniformly on a logarithmic scale
_RANGES: dict[str, tuple[float, float, bool]] = {
    "max_depth": (2, 8, True),
    "learning_rate": (0.02, 0.2, False),
    "min_child_weight": (0.5, 20, False),
    "reg_lambda": (0.1, 30, False),
    "reg_alpha": (0.001, 3, False),
    "subsample": (0.5, 1, False),
    "colsample_bytree": (0.05, 1, False),
}


def draw_parameters(count: int, seed: int) -> list[dict[str, Any]]:
    """Return parameters to try: the defaults, then random ones, which for a seed do not depend on their number."""
    rng = np.random.default_rng([seed, 8])
    trials: list[dict[str, Any]] = [{}]
    while len(trials) < count:
        parameters = {}
        for name, (low, high, is_whole) in _RANGES.items():
            value = float(np.exp(rng.uniform(np.log(low), np.log(high + is_whole))))
            parameters[name] = min(int(value), int(high)) if is_whole else float(f"{value:.4g}")
        trials.append(parameters)
    return trials


def grouped_folds(targets: np.ndarray, groups: Sequence[str], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the indices to train on and to validate on for each fold; no group is in both."""
    from sklearn.model_selection import StratifiedGroupKFold

    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    count = min(FOLDS, int(numbers.max(initial=-1)) + 1, int(np.bincount(targets).max(initial=0)))
    if count < 2:
        raise InputError("--tune: training images are of one group, or one of each class; leave --tune out")
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes with fewer images than folds
        return [(train, val) for train, val in folds.split(targets, targets, numbers) if len(val)]


def search(
    features: FeatureReader,
    train: Samples,
    groups: Sequence[str],
    options: BoostingOptions,
    count: int,
    file: Path,
    quiet: bool,
) -> dict[str, Any]:
    """Return the parameters of the lowest loss over folds of the training images; those in `options` stay.

    Each of `count` trials is kept as a line of a JSON file, so that a killed search can go on.
    """
    earlier = _read_trials(file)
    folds = grouped_folds(train.targets, groups, options.seed)
    classes, sizes = int(train.targets.max()) + 1, [len(fold) for _, fold in folds]
    trials: list[dict[str, Any]] = []
    for number, drawn in enumerate(draw_parameters(count, options.seed)):
        parameters = {**drawn, **options.parameters}
        if number < len(earlier) and earlier[number]["parameters"] == parameters:
            trials.append(earlier[number])
            continue
        title = f"trial {number + 1}"
        trial_options = options.model_copy(update={"parameters": parameters})
        results = [
            boost(features, train.take(rest), train.take(fold), classes, trial_options, title=title, quiet=quiet)
            for rest, fold in folds
        ]
        loss = float(np.average([result.loss for result in results], weights=sizes))
        accuracy = float(np.average([result.accuracy for result in results], weights=sizes))
        scores = {"loss": round(loss, 6), "accuracy": round(accuracy, 6)}
        rounds = [result.rounds for result in results]
        trials.append({"trial": number + 1, **scores, "rounds": rounds, "parameters": parameters})
        with atomic(file, "w") as stream:
            stream.writelines(json.dumps(trial) + "\n" for trial in trials)
        if not quiet:
            note(f"{title}/{count}: loss {scores['loss']:.4f}, accuracy {scores['accuracy']:.3f}")
    best = min(trials, key=lambda trial: (trial["loss"], trial["trial"]))
    if not quiet:
        shown = ", ".join(f"{key} {value}" for key, value in {**DEFAULTS, **best["parameters"]}.items())
        note(f"trial {best['trial']} is best: {shown}")
    return best["parameters"]


def _read_trials(file: Path) -> list[dict[str, Any]]:
    trials = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
            trials.append({key: row[key] for key in _TRIAL})
        except (ValueError, TypeError, KeyError):
            break
    return trials
