"""Fused models: what their trees start from, which features they use, and how they are grown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import special

from wbctool.console import warn
from wbctool.errors import InputError
from wbctool.fusing.boosting import BoostingResult, Samples, boost
from wbctool.fusing.feature_table import BATCH_ROWS, FeatureTable, architecture_of
from wbctool.fusing.importance import IMAGES, importance_of, importance_plot
from wbctool.fusing.options import BoostingOptions, FusionOptions
from wbctool.fusing.search import search
from wbctool.inputs.dataset import Dataset
from wbctool.inputs.folders import read_inputs
from wbctool.modeling import run_folder
from wbctool.modeling.fused import (
    MORPHOLOGY,
    FusedArchitecture,
    FusedModel,
    weighted_log_probabilities,
    weighted_margins,
)
from wbctool.modeling.predictor import missing_measures
from wbctool.modeling.run_folder import HOLDOUT, Run, write_dataset, write_predictions
from wbctool.records import PREDICTION, group_of, to_line
from wbctool.records.selection import Selection
from wbctool.records.storage import atomic, write_bytes, write_json
from wbctool.records.tally import Tally
from wbctool.statistics.plots import as_png, learning_curves

_STEPS = 60  # of a bisection between 0 and 1


@dataclass(frozen=True)
class FittedFusion:
    """A fused model and how it was found."""

    model: FusedModel
    boosting: BoostingResult
    options: BoostingOptions  # with the parameters that a search found
    tried: list[dict[str, Any]]  # features, rounds, validation loss and accuracy of all trees that were grown


class Fusion:
    """Fits fused models to a dataset; `rows` are those of the table of features that could be read, by split."""

    def __init__(self, dataset: Dataset, table: FeatureTable, options: FusionOptions, quiet: bool) -> None:
        self.dataset, self.table, self.options, self._quiet = dataset, table, options, quiet
        self._runs = runs = [network.run for network in table.networks]
        self._takes_unmeasured = options.morphology and self._has_unmeasured()
        self.rows, first = {}, 0
        for split, records in dataset.splits.items():
            self.rows[split] = table.readable(range(first, first + len(records)))
            first += len(records)
        targets = np.array([dataset.classes.index(record["label"]) for record in dataset.everything], np.int64)
        missing = sorted(set(range(len(dataset.classes))) - set(targets[self.rows["train"]].tolist()))
        if missing:
            names = ", ".join(dataset.classes[number] for number in missing)
            raise InputError(f"class {names}: none of its training images can be read; repair them or use --classes")
        # those of a mean, at their temperatures
        weights = (1 / (len(runs) * (run.temperature or 1.0)) for run in runs if options.start == "runs")
        self._weights = tuple(weights)
        start = self._start_margins(len(targets))
        self._samples = {
            split: Samples(rows, targets[rows], None if start is None else start[rows])
            for split, rows in self.rows.items()
        }

    def _has_unmeasured(self) -> bool:
        """Tell whether training images lack measures. Where none does, others that lack them fail."""
        rows = self.table.unmeasured_rows()
        if any(row < len(self.dataset.splits["train"]) for row in rows):
            return True
        for row in rows:
            self.table.failed[row] = missing_measures(self.dataset.everything[row])
        return False

    def _start_margins(self, count: int) -> np.ndarray | None:
        """Return the margins that trees start from, (count, classes), NaN for failed rows; None for no start."""
        if not self._weights:
            return None
        rows = np.concatenate(list(self.rows.values()))
        limits = [validation_confidence(run) for run in self._runs]
        start = np.full((count, len(self.dataset.classes)), np.nan, np.float32)
        train = np.searchsorted(rows, self.rows["train"])
        start[rows] = start_margins(self.table.probabilities(rows), self._weights, limits, train)
        return start

    def fit(self, trials: Path) -> FittedFusion:
        """Grow trees on the training split; a search for parameters is kept in the file `trials`.

        Validation decides when to stop, and where runs are the start, also which kinds of features help.
        """
        wanted, has_validation = self.options.parts(bool(self._runs)), len(self._samples["val"].rows) > 0
        if not has_validation:
            warn(
                "no validation images: trees do not know when to stop, and the run is not calibrated; "
                "see `wbctool split`"
            )
        selects = len(wanted) > 1 and self._weights and has_validation and not self.options.all_features
        boosting_options, tried = self.options.settings, []
        candidates = []
        more = {"start": self._weights, "classes": self.dataset.classes, "unmeasured": self._takes_unmeasured}
        for parts in (wanted, *((part,) for part in wanted if selects)):
            architecture = architecture_of(self.table.networks, parts, **more)
            result = self._boost(architecture, boosting_options, " + ".join(parts))
            candidates.append((architecture, result))
            tried.append(_summary(parts, result))
        architecture, result = min(candidates, key=_cost)
        if self.options.tune:
            features, train = self.table.reader(architecture), self._samples["train"]
            groups = [group_of(self.dataset.everything[row]) for row in train.rows]
            parameters = search(features, train, groups, boosting_options, self.options.tune, trials, self._quiet)
            boosting_options = boosting_options.model_copy(update={"parameters": parameters})
            result = self._boost(architecture, boosting_options, "trees")
            tried.append(_summary((*architecture.parts, "tuned"), result))
        model = FusedModel(architecture, [run.model for run in self._runs])
        model.booster = result.booster
        return FittedFusion(model, result, boosting_options, tried)

    def _boost(self, architecture: FusedArchitecture, options: BoostingOptions, title: str) -> BoostingResult:
        # networks have seen the training images: trees on their features gain too easily
        significant = architecture.parts != (MORPHOLOGY,) and not self.options.all_features
        train, val = self._samples["train"], self._samples["val"]
        features, classes = self.table.reader(architecture), len(self.dataset.classes)
        return boost(features, train, val, classes, options, significant=significant, title=title, quiet=self._quiet)

    def start(self, model: FusedModel, rows: np.ndarray) -> np.ndarray | None:
        """Return the margins from which the trees of a model start for other images, (n, classes)."""
        return weighted_margins(self.table.probabilities(rows), model.architecture.start)

    def probabilities(self, model: FusedModel, rows: np.ndarray) -> np.ndarray:
        """Return the probabilities of images, (n, classes), that `predict` will give."""
        read = self.table.reader(model.architecture).read
        probabilities = [np.zeros((0, len(self.dataset.classes)))]
        for first in range(0, len(rows), BATCH_ROWS):
            batch = rows[first : first + BATCH_ROWS]
            margins = model.boosted(read(batch), self.start(model, batch)).astype(np.float64)
            probabilities.append(torch.softmax(torch.from_numpy(margins), 1).numpy())
        return np.concatenate(probabilities)


def _cost(candidate: tuple[FusedArchitecture, BoostingResult]) -> tuple[float, bool, int]:
    """Rank by loss; among equals, as where no tree helps, by what a model needs of its images."""
    parts = candidate[0].parts
    return candidate[1].loss, MORPHOLOGY in parts, len(parts)


def _summary(features: Sequence[str], result: BoostingResult) -> dict[str, Any]:
    scores = {"loss": result.loss, "accuracy": result.accuracy}
    rounded = {name: None if math.isnan(value) else round(value, 6) for name, value in scores.items()}
    return {"features": list(features), "rounds": result.rounds, **rounded}


def save_run(
    out: Path, fusion: Fusion, fitted: FittedFusion, training: dict[str, Any], info: dict[str, Any]
) -> dict[str, Any]:
    """Write all files of a run folder, `model.json` last, with the options of training; return the importance."""
    dataset, model = fusion.dataset, fitted.model
    write_dataset(out, dataset)
    holdout = {}
    for split in HOLDOUT:
        rows = fusion.rows[split]
        holdout[split] = ([dataset.everything[row] for row in rows], fusion.probabilities(model, rows))
    calibration = write_predictions(out, str(out), dataset.classes, holdout)
    rows = fusion.rows["val"] if len(fusion.rows["val"]) else fusion.rows["train"]
    rows = rows[np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).astype(np.int64)]  # sorted by class: of all
    features = fusion.table.reader(model.architecture).read(rows)
    importance = importance_of(model, features, fusion.start(model, rows))
    write_json(out / "importance.json", importance)
    write_bytes(out / "importance.png", as_png(importance_plot(importance)))
    write_bytes(out / "curves.png", as_png(learning_curves(fitted.boosting.history, fitted.boosting.rounds)))
    with atomic(out / "history.jsonl", "w") as stream:
        stream.writelines(to_line(row) + "\n" for row in fitted.boosting.history)
    write_json(out / "run.json", info)
    about = {"training": training, "preparation": dataset.preparation, "calibration": calibration}
    run_folder.save(out, model, {**about, "best_epoch": fitted.boosting.rounds})
    return importance


def validation_confidence(run: Run) -> float | None:
    """Return the mean confidence of a run on its own validation images; None where it had none."""
    file = run.path / "predictions.jsonl"
    records = read_inputs([str(file)], Selection(), Tally()) if file.is_file() else ()
    values = [r["confidence"] for r in records if r["schema"] == PREDICTION and r.get("split") == "val"]
    return float(np.mean(values)) if values else None


def limit_confidence(margins: np.ndarray, limit: float | None) -> np.ndarray:
    """Scale margins down until their mean confidence is at most the limit.

    A network is more confident on its training images than on others. Trees that start from that would find nothing
    left to correct. Margins are (n, classes); the limit is from 0 to 1, None leaves them as they are.
    """
    if limit is None or not len(margins) or _mean_confidence(margins) <= limit:
        return margins
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_confidence(middle * margins) < limit else (low, middle)
    return high * margins


def _mean_confidence(margins: np.ndarray) -> float:
    return float(special.softmax(margins.astype(np.float64), axis=1).max(1).mean())


def start_margins(
    probabilities: Sequence[np.ndarray], weights: Sequence[float], limits: Sequence[float | None], train: np.ndarray
) -> np.ndarray:
    """Compute the margins that trees start from, (n, classes), float32, with limited confidence on the rows `train`.

    Probabilities (n, classes), weights and limits, the confidence on validation images, are those of each run. Margins
    of training images do not depend on any other image.
    """
    margins = weighted_log_probabilities(probabilities, weights)
    of_runs = [
        limit_confidence(weighted_log_probabilities([rows[train]], [weight * len(weights)]), limit)
        for rows, weight, limit in zip(probabilities, weights, limits, strict=True)
    ]
    margins[train] = np.mean(of_runs, axis=0)
    return margins
