"""`predict` as a batch step: decode, measure, classify."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbctool.device import cores, pick_device, pick_precision
from wbctool.errors import ImageError, InputError, UsageProblem
from wbctool.imaging.files import read_image
from wbctool.imaging.inputs import scaled_to
from wbctool.inference.answers import Answers
from wbctool.measuring.batches import Measuring
from wbctool.modeling.predictor import BATCH, missing_measures, prediction_record, probabilities
from wbctool.modeling.run_folder import Run, load, trained_precision
from wbctool.pipeline.output_folder import OutputFile
from wbctool.pipeline.step import BatchStep, BatchWork, Named, same_id
from wbctool.records import ERROR, PREDICTION, Record, error_record, from_line
from wbctool.statistics.calibration import scaled
from wbctool.statistics.conformal import PredictionSets

INPUT_KEYS = ("id", "path", "mask", "value", "nucleus", "bbox", "cells")  # of a record, that a prediction depends on
CHOSEN_KEYS = ("views", "precision", "merged", "excluded")  # of a prediction, that say what differs from the training
_FIRST_KEYS = ("schema", "run", "predicted", "confidence", "probabilities", "temperature")
_MADE = (*_FIRST_KEYS, "missing", *CHOSEN_KEYS)


def load_runs(paths: Sequence[Path], device_name: str, precision: str) -> tuple[list[Run], torch.device, str]:
    """Load runs whose probabilities can be averaged; `auto` is the precision they were trained in, where they agree."""
    device = pick_device(device_name)
    runs = [load(path, device) for path in paths]
    for run in runs[1:]:
        if run.classes != runs[0].classes:
            raise InputError(f"{run.path}: its classes differ from those of {runs[0].path}; they cannot be averaged")
    trained_in = {trained_precision(run.info) for run in runs}
    if precision == "auto" and len(trained_in) == 1:
        (precision,) = trained_in
    return runs, device, pick_precision(precision, device)


def open_file(path: Path, runs: Sequence[Run], chosen: dict[str, Any], overwrite: bool) -> OutputFile:
    """Open a file for predictions; those that it holds are used again where runs and images are the same."""
    if path.exists() and not overwrite:
        _refuse_other_predictions(path, run_name([run.path for run in runs]), chosen)
    newest = max((run.path / "model.json").stat().st_mtime_ns for run in runs)
    return OutputFile(path, overwrite, newest)


def _refuse_other_predictions(path: Path, name: str, chosen: dict[str, Any]) -> None:
    with open(path, encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            try:
                old = from_line(line, f"{path} line {number}")
            except InputError:
                old = {"schema": None}
            if old["schema"] not in (PREDICTION, ERROR):
                raise InputError(f"{path}: exists and holds no predictions; give another file, or --overwrite")
            if old["schema"] == ERROR:
                continue
            if old.get("run") != name:
                raise UsageProblem(f"{path}: holds predictions of {old.get('run')}; give another file, or --overwrite")
            for key in CHOSEN_KEYS:
                if old.get(key) != chosen.get(key):
                    before, now = (source.get(key, "as trained") for source in (old, chosen))
                    raise UsageProblem(
                        f"{path}: predicted with {key} {before}, not {now}; give another file, or --overwrite"
                    )
            return


def predict_step(
    runs: Sequence[Run],
    device: torch.device,
    precision: str,
    answers: Answers,
    threshold: float | None = None,
    sets: PredictionSets | None = None,
    chosen: dict[str, Any] | None = None,
    jobs: int = 0,
    unit: str = "images",
) -> BatchStep:
    """The step that predicts with one run, or with the mean of the probabilities of several, of the same classes.

    `chosen` is what differs from how the runs were trained, kept in records: `views`, the number of symmetries of the
    square over which probabilities are averaged, `precision`, and what `answers` state. `jobs` processes measure cells,
    for runs that need it; 0 for one per core.
    """
    name, chosen = run_name([run.path for run in runs]), chosen or {}

    def unchanged(old: Record, record: Record) -> bool:
        same_input = all(old.get(key) == record.get(key) for key in INPUT_KEYS)
        same_run = old.get("run") == name and all(old.get(key) == chosen.get(key) for key in CHOSEN_KEYS)
        return old["schema"] == PREDICTION and same_input and same_run

    return BatchStep(
        name="predict",
        settings={},
        expected=same_id,
        compose=partial(_composed, threshold, sets),
        made=_MADE,
        unit=unit,
        origin="path",
        unchanged=unchanged,
        batch_size=BATCH,
        session=lambda: _session(_Predictor(runs, name, answers, device, precision, chosen), jobs),
    )


def run_name(paths: Sequence[Path]) -> str:
    """The name of one run, or of several, in predictions."""
    return "+".join(map(str, paths))


def _composed(threshold: float | None, sets: PredictionSets | None, record: Record, made: Record) -> Record:
    """The prediction record of an image, marked uncertain where its confidence is below the threshold."""
    first = {key: made[key] for key in _FIRST_KEYS if key in made}
    if threshold is not None:
        first["uncertain"] = made["confidence"] < threshold
    if sets is not None:
        first |= {"prediction_set": sets.of(made["probabilities"]), "coverage": sets.coverage}
    return {**record, **first, **{key: value for key, value in made.items() if key not in first}}


@contextmanager
def _session(predictor: _Predictor, jobs: int) -> Iterator[BatchWork]:
    with ThreadPoolExecutor(max_workers=min(16, cores())) as pool, Measuring(jobs) as measuring:
        yield lambda batch: predictor.predict(batch, pool, measuring)


@dataclass
class _Decoded:
    """An image at each input size of the runs; or why there is none."""

    images: dict[int, np.ndarray] = field(default_factory=dict)
    error: str | None = None


class _Predictor:
    """Predicts batches with one run or several; see `predict_step`."""

    def __init__(
        self,
        runs: Sequence[Run],
        name: str,
        answers: Answers,
        device: torch.device,
        precision: str,
        chosen: dict[str, Any],
    ) -> None:
        self.runs, self.name, self.answers = runs, name, answers
        self.device, self.precision, self.chosen = device, precision, chosen
        self.temperature = runs[0].temperature if len(runs) == 1 else None
        architectures = [run.model.architecture for run in runs]
        self.sizes = sorted({architecture.size for architecture in architectures})
        self.measures = any(architecture.measures for architecture in architectures)
        self.needs_mask = any(architecture.needs_mask for architecture in architectures)

    def predict(self, batch: Sequence[Named], pool: ThreadPoolExecutor, measuring: Measuring) -> list[list[Record]]:
        """The prediction, or an error record, of each record of a batch."""
        records = [record for record, _ in batch]
        decoded = list(pool.map(self._decode, records))
        measures = self._measure(records, decoded, measuring) if self.measures else None
        rows = self.answers.probabilities(self._classify(decoded, measures))
        results = []
        for index, (record, image) in enumerate(zip(records, decoded, strict=True)):
            if image.error is None and not np.isfinite(rows[index]).all():
                image.error = f"{record['path']}: {self.name} gives NaN or infinity for it; give --precision float32"
            if image.error is not None:
                results.append([error_record(record["id"], record["path"], image.error)])
                continue
            made = prediction_record({}, self.name, self.answers.names, rows[index], temperature=self.temperature)
            if measures is not None and np.isnan(measures[index]).all():
                made["missing"] = ["morphology"]
            results.append([{**made, **self.chosen}])
        return results

    def _decode(self, record: Record) -> _Decoded:
        try:
            if self.needs_mask and not isinstance(record.get("mask"), str):
                raise ImageError(missing_measures(record))
            image = read_image(record["path"])
            return _Decoded({size: scaled_to(image, size) for size in self.sizes})
        except ImageError as error:
            return _Decoded(error=str(error))

    def _measure(self, records: Sequence[Record], decoded: Sequence[_Decoded], measuring: Measuring) -> np.ndarray:
        """Measures of the cells of a batch, (n, measures), NaN where there are none."""
        from wbctool.measuring import morphology

        measures = np.full((len(records), len(morphology.names())), np.nan, np.float32)
        readable = [index for index, image in enumerate(decoded) if image.error is None]
        for index, row in zip(readable, measuring([records[index] for index in readable]), strict=True):
            if self.needs_mask and not isinstance(row, str) and np.isnan(row).all():
                row = missing_measures(records[index])
            if isinstance(row, str):
                decoded[index].error = row
            else:
                measures[index] = row
        return measures

    def _classify(self, decoded: Sequence[_Decoded], measures: np.ndarray | None) -> np.ndarray:
        """Calibrated class probabilities of a batch, (n, classes), averaged over runs; NaN for unreadable images."""
        rows = np.full((len(decoded), len(self.answers.classes)), np.nan)
        readable = [index for index, image in enumerate(decoded) if image.error is None]
        if not readable:
            return rows
        total = np.zeros((len(readable), len(self.answers.classes)))
        for run in self.runs:
            size = run.model.architecture.size
            stack = torch.from_numpy(np.stack([decoded[index].images[size] for index in readable]))
            images = stack.permute(0, 3, 1, 2).to(self.device)
            cells = measures[readable] if measures is not None else None
            each = probabilities(run.model, images, self.precision, self.chosen.get("views"), cells)
            total += scaled(each, run.temperature or 1.0)
        rows[readable] = total / len(self.runs)
        return rows
