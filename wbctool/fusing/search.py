"""The search for settings of the trees: at random, by grouped cross-validation within the training split."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wbctool.console import note
from wbctool.errors import InputError
from wbctool.fusing.boosting import DEFAULTS, Part, Settings, grow
from wbctool.records.storage import atomic

FOLDS = 5
_TRIAL = ("trial", "loss", "accuracy", "rounds", "parameters")
# name → (least, most, whether a whole number); drawn evenly on a scale of logarithms
_RANGES: dict[str, tuple[float, float, bool]] = {
    "max_depth": (2, 8, True),
    "learning_rate": (0.02, 0.2, False),
    "min_child_weight": (0.5, 20, False),
    "reg_lambda": (0.1, 30, False),
    "reg_alpha": (0.001, 3, False),
    "subsample": (0.5, 1, False),
    "colsample_bytree": (0.05, 1, False),
}


def draws(count: int, seed: int) -> list[dict[str, Any]]:
    """Settings to try: the defaults, then others at random; the same for a seed, whatever their number."""
    rng = np.random.default_rng([seed, 8])
    found: list[dict[str, Any]] = [{}]
    while len(found) < count:
        drawn = {}
        for name, (least, most, whole) in _RANGES.items():
            value = float(np.exp(rng.uniform(np.log(least), np.log(most + whole))))
            drawn[name] = min(int(value), int(most)) if whole else float(f"{value:.4g}")
        found.append(drawn)
    return found


def folds_of(targets: np.ndarray, groups: Sequence[str], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each fold the places to grow on and to check on; no group is in both.

    Raises:
        InputError: there are fewer than two groups, or images of any class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    count = min(FOLDS, int(numbers.max(initial=-1)) + 1, int(np.bincount(targets).max(initial=0)))
    if count < 2:
        raise InputError("--tune: training images are of one group, or one of each class; leave --tune out")
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds
        return [(known, held) for known, held in folds.split(targets, targets, numbers) if len(held)]


def search(
    read: Callable[[np.ndarray], np.ndarray],
    names: Sequence[str],
    train: Part,
    groups: Sequence[str],
    classes: int,
    settings: Settings,
    count: int,
    file: Path,
    quiet: bool,
) -> dict[str, Any]:
    """The parameters of least loss over folds of the training images; those given by a person stay.

    Each trial is kept in a file, so that a killed search goes on.

    Args:
        read: gives the features of rows.
        names: of the features.
        train: the training images.
        groups: of each of them.
        classes: how many.
        settings: how trees are grown otherwise.
        count: trials.
        file: of the trials, JSON lines.
        quiet: no notes.
    """
    done = _read(file)
    parts = folds_of(train.targets, groups, settings.seed)
    trials: list[dict[str, Any]] = []
    for number, drawn in enumerate(draws(count, settings.seed)):
        own = {**drawn, **settings.parameters}
        if number < len(done) and done[number]["parameters"] == own:
            trials.append(done[number])
            continue
        tried = replace(settings, parameters=own)
        what = f"trial {number + 1}"
        grown = [
            grow(read, names, train.at(known), train.at(held), classes, tried, quiet, what) for known, held in parts
        ]
        sizes = [len(held) for _, held in parts]
        means = (np.average([getattr(one, key) for one in grown], weights=sizes) for key in ("loss", "accuracy"))
        loss, accuracy = (round(float(value), 6) for value in means)
        rounds = [one.rounds for one in grown]
        trials.append(dict(zip(_TRIAL, (number + 1, loss, accuracy, rounds, own), strict=True)))
        with atomic(file, "w") as stream:
            stream.writelines(json.dumps(trial) + "\n" for trial in trials)
        if not quiet:
            note(f"{what}/{count}: loss {loss:.4f}, accuracy {accuracy:.3f}")
    best = min(trials, key=lambda trial: (trial["loss"], trial["trial"]))
    if not quiet:
        shown = ", ".join(f"{key} {value}" for key, value in {**DEFAULTS, **best["parameters"]}.items())
        note(f"trial {best['trial']} is best: {shown}")
    return best["parameters"]


def _read(file: Path) -> list[dict[str, Any]]:
    """The trials of an earlier search."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
            found.append({key: row[key] for key in _TRIAL})
        except (ValueError, TypeError, KeyError):
            break
    return found
