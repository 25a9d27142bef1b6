"""Prediction records from images: in fixed batches, streamed, and resumable into a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wbctool.device import autocast, images_at_once
from wbctool.errors import ImageError, InputError, UsageProblem
from wbctool.evaluation.calibration import scaled
from wbctool.imaging.files import read_image
from wbctool.imaging.inputs import scaled_to
from wbctool.measuring.batches import Measuring
from wbctool.outputs import take_lock
from wbctool.parallel import cores
from wbctool.records import ERROR, PREDICTION, Record, error_record, to_line

if TYPE_CHECKING:
    from wbctool.modeling.kinds import Model
    from wbctool.modeling.run_folder import Run

BATCH = 64
_LOOKED_AT = ("id", "path", "mask", "value", "nucleus", "bbox", "cells")  # keys of what a run may look at
_HOW = ("views", "precision")  # keys of a prediction that say what was asked for otherwise


def probabilities(
    model: Model,
    images: torch.Tensor,
    precision: str,
    views: int | None = None,
    measures: np.ndarray | None = None,
) -> np.ndarray:
    """Class probabilities of a batch: the mean over as many symmetries of the square as the model asks for.

    Args:
        model: returns logits (n, classes).
        images: (n, 3, size, size), uint8, on the model's device.
        precision: `float32` or `bf16`.
        views: symmetries, 1 to 8, in place of the model's own number.
        measures: of the cells, (n, measures), for a model that asks for them.

    Returns:
        Shape (n, classes), float64; rows sum to 1.
    """
    count = views or model.architecture.symmetries
    asked = measures if model.architecture.measures else None
    shares = []
    step = images_at_once(images.device)
    with torch.inference_mode(), autocast(images.device, precision):
        for start, part in zip(range(0, len(images), step), images.split(step), strict=True):
            more = [] if asked is None else [asked[start : start + step]]
            each = [torch.softmax(model(view, *more).double(), dim=1) for view in symmetries(part, count)]
            shares.append(torch.stack(each).mean(0))
    return torch.cat(shares).cpu().numpy()


def symmetries(images: torch.Tensor, count: int) -> list[torch.Tensor]:
    """The first `count` of the eight symmetries of the square, of a batch (n, channels, side, side)."""
    views = []
    for number in range(count):
        view = images.flip(-1) if number & 1 else images
        view = view.flip(-2) if number & 2 else view
        views.append(view.transpose(-1, -2) if number & 4 else view)
    return [view.contiguous(memory_format=torch.channels_last) for view in views]


def prediction_record(
    record: Record,
    run: str,
    classes: Sequence[str],
    row: np.ndarray,
    threshold: float | None = None,
    temperature: float | None = None,
) -> Record:
    """The prediction for one image: its record with what was predicted added.

    Args:
        record: of the image.
        run: name of the run.
        classes: their names.
        row: their probabilities, shape (classes,).
        threshold: confidence under which it is uncertain.
        temperature: by which the logits were divided, where the run has one.
    """
    best = int(np.argmax(row))
    made = {
        **record,
        "schema": PREDICTION,
        "run": run,
        "predicted": classes[best],
        "confidence": _rounded(row[best]),
        "probabilities": {name: _rounded(share) for name, share in zip(classes, row, strict=True)},
    }
    if temperature is not None:
        made["temperature"] = temperature
    return with_uncertainty(made, threshold)


def _rounded(share: float) -> float:
    return float(f"{share:.6g}")  # digits, not decimals: the log loss is made of small ones


def with_uncertainty(record: Record, threshold: float | None) -> Record:
    """The prediction marked uncertain where its confidence is under the threshold."""
    return record if threshold is None else {**record, "uncertain": record["confidence"] < threshold}


def predict(
    runs: Sequence[Run],
    records: Iterable[Record],
    device: torch.device,
    precision: str,
    threshold: float | None,
    how: dict[str, Any] | None = None,
    reuse: Callable[[list[Record]], list[Record] | None] | None = None,
    jobs: int = 0,
) -> Iterator[Record]:
    """Prediction records (and error records) for records, in order.

    Batches are cut by position in the input, so a resumed run computes the same batches and so the
    same bytes. Several runs give the mean of their probabilities.

    Args:
        runs: loaded runs with the same classes.
        records: image, mask, cell and error records.
        device: where the models are.
        precision: `float32` or `bf16`.
        threshold: confidence under which a prediction is marked uncertain.
        how: what is done otherwise than the runs were trained, and kept in records: `views`, the symmetries of the
            square that probabilities are the mean over, and `precision`.
        reuse: the finished predictions of a batch, or None where it is to be computed.
        jobs: processes that measure cells, for runs that ask for that; 0 for one per core.
    """
    name = "+".join(str(run.path) for run in runs)
    classes = runs[0].classes
    temperature = runs[0].temperature if len(runs) == 1 else None
    needs = _Needs.of(runs)
    stream = iter(records)
    batches = iter(lambda: list(islice(stream, BATCH)), [])
    with ThreadPoolExecutor(max_workers=min(16, cores())) as pool, Measuring(jobs) as measuring:
        for batch in batches:
            old = reuse(batch) if reuse else None
            if old is not None:
                yield from (with_uncertainty(record, threshold) for record in old)
                continue
            decoded = list(pool.map(lambda record: _decoded(record, needs), batch))
            measures = _measured(batch, decoded, measuring, needs.mask) if needs.measures else None
            good = [index for index, one in enumerate(decoded) if one.error is None]
            rows: dict[int, np.ndarray] = {}
            if good:
                own = measures[good] if measures is not None else None
                total = np.zeros((len(good), len(classes)))
                for run in runs:
                    size = run.model.architecture.size
                    stack = torch.from_numpy(np.stack([decoded[index].images[size] for index in good]))
                    images = stack.permute(0, 3, 1, 2).to(device)
                    shares = probabilities(run.model, images, precision, (how or {}).get("views"), own)
                    total += scaled(shares, run.temperature or 1.0)
                rows = dict(zip(good, total / len(runs), strict=True))
            for index in [index for index, row in rows.items() if not np.isfinite(row).all()]:
                del rows[index]
                reason = f"{batch[index]['path']}: {name} gives NaN or infinity for it; give --precision float32"
                decoded[index].error = error_record(batch[index]["id"], batch[index]["path"], reason)
            for index, (record, one) in enumerate(zip(batch, decoded, strict=True)):
                if one.error is not None:
                    yield one.error
                    continue
                made = prediction_record(record, name, classes, rows[index], threshold, temperature)
                if measures is not None and np.isnan(measures[index]).all():
                    made["missing"] = ["morphology"]
                yield {**made, **(how or {})}


@dataclass(frozen=True)
class _Needs:
    """What runs look at: images of these sizes; what cells measure; a mask, without which they refuse."""

    sizes: tuple[int, ...]
    measures: bool
    mask: bool

    @classmethod
    def of(cls, runs: Sequence[Run]) -> _Needs:
        asked = [run.model.architecture for run in runs]
        sizes = tuple(sorted({own.size for own in asked}))
        return cls(sizes, any(own.measures for own in asked), any(own.needs_mask for own in asked))


@dataclass
class _Decoded:
    """An image at the sides that runs look at; or the error record that takes its place."""

    images: dict[int, np.ndarray] = field(default_factory=dict)
    error: Record | None = None


def unmeasured(record: Record) -> str:
    """Why nothing can be measured of a record's cell."""
    if isinstance(record.get("mask"), str):
        return f"{record['id']}: its mask holds no white cell and no platelet, and this run measures cells"
    return (
        f"{record['path']}: carries no mask, and this run measures cells; "
        "give the records of `wbctool segment` and `crop`"
    )


def _decoded(record: Record, needs: _Needs) -> _Decoded:
    if record["schema"] == ERROR:
        return _Decoded(error=record)
    try:
        if needs.mask and not isinstance(record.get("mask"), str):
            raise ImageError(unmeasured(record))
        image = read_image(record["path"])
        return _Decoded({size: scaled_to(image, size) for size in needs.sizes})
    except ImageError as error:
        return _Decoded(error=error_record(record["id"], record["path"], str(error)))


def _measured(batch: list[Record], decoded: list[_Decoded], measuring: Measuring, every: bool) -> np.ndarray:
    """What the cells of a batch measure, (n, measures); where they cannot be, an error takes the image's place."""
    from wbctool.measuring import morphology

    found = np.full((len(batch), len(morphology.names())), np.nan, np.float32)
    places = [index for index, one in enumerate(decoded) if one.error is None]
    for index, row in zip(places, measuring([batch[index] for index in places]), strict=True):
        record = batch[index]
        if every and not isinstance(row, str) and np.isnan(row).all():
            row = unmeasured(record)
        if isinstance(row, str):
            decoded[index].error = error_record(record["id"], record["path"], row)
        else:
            found[index] = row
    return found


class PredictionFile:
    """A file of predictions that is whole or absent; a killed run's batches are used again.

    Args:
        path: the file.
        newer_than: files (weights) that outdate old predictions.
        overwrite: use nothing of what is there.
        run: the name of the run, or of several.
        how: what it does otherwise than it was trained.

    Raises:
        InputError: the file is there and holds something else.
        UsageProblem: it holds what another run has predicted.
        BusyError: another command is writing it.
    """

    def __init__(
        self, path: Path, newer_than: Sequence[Path], overwrite: bool, run: str, how: dict[str, Any] | None = None
    ) -> None:
        self._run, self._how = run, how or {}
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._new = path.with_name(f".{path.name}.part.new")
        self._old: list[Record] = []
        self._old_time = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = path.with_name(f".{path.name}.lock")
        self._lock = take_lock(self._lock_file, f"{path}: another command is writing this file; wait for it to end")
        if not overwrite:
            if path.exists() and len(_whole_records(path)) == 0 and path.stat().st_size:
                raise InputError(f"{path}: is there and holds no predictions; give another file, or --overwrite")
            self._refuse_others()
            outdated = max(file.stat().st_mtime_ns for file in newer_than)
            for file in (path, self._part):
                if file.exists() and file.stat().st_mtime_ns >= outdated:
                    found = _whole_records(file)
                    if len(found) > len(self._old):
                        self._old, self._old_time = found, file.stat().st_mtime_ns
        self._position = 0
        self._kept = self._new
        self._stream = open(self._new, "wb")

    def _refuse_others(self) -> None:
        """Refuse to replace what another run, or the same otherwise, has predicted."""
        for old in _whole_records(self._path) if self._path.exists() else ():
            if old["schema"] == PREDICTION:
                if old.get("run") != self._run:
                    raise UsageProblem(
                        f"{self._path}: holds predictions of {old.get('run')}; give another file, or --overwrite"
                    )
                for key in _HOW:
                    if old.get(key) != self._how.get(key):
                        raise UsageProblem(
                            f"{self._path}: predicted with {key} {old.get(key, 'as trained')}, "
                            f"not {self._how.get(key, 'as trained')}; give another file, or --overwrite"
                        )
                return

    def reuse(self) -> Callable[[list[Record]], list[Record] | None]:
        """For `predict`: what an earlier run of the same model said of the same, unchanged images."""

        def reused(batch: list[Record]) -> list[Record] | None:
            start, self._position = self._position, self._position + len(batch)
            old = self._old[start : start + len(batch)]
            if len(old) < len(batch) or not all(self._same(was, now) for was, now in zip(old, batch, strict=True)):
                return None
            made = ("schema", "run", "predicted", "confidence", "probabilities", "temperature", "missing", *_HOW)
            return [
                {**record, **{key: was[key] for key in made if key in was}}
                for was, record in zip(old, batch, strict=True)
            ]

        return reused

    def _same(self, was: Record, record: Record) -> bool:
        known = all(was.get(key) == record.get(key) for key in _LOOKED_AT) and was["schema"] == PREDICTION
        try:
            known = known and was.get("run") == self._run and all(was.get(key) == self._how.get(key) for key in _HOW)
            files = [record[key] for key in ("path", "mask") if isinstance(record.get(key), str)]
            return known and all(os.stat(file).st_mtime_ns <= self._old_time for file in files)
        except OSError:
            return False

    def write(self, record: Record) -> None:
        """Append one record."""
        self._stream.write((to_line(record) + "\n").encode())

    def keep(self) -> None:
        """Make what was written so far survive a kill, once it exceeds what an earlier run left."""
        self._stream.flush()
        if self._position >= len(self._old) and self._kept == self._new:
            os.replace(self._new, self._part)
            self._kept = self._part

    def finish(self) -> None:
        """Put the file in place."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        os.replace(self._kept, self._path)
        self._part.unlink(missing_ok=True)
        self._lock_file.unlink(missing_ok=True)
        self._lock.close()


def _whole_records(file: Path) -> list[Record]:
    """The leading whole lines that are predictions or errors."""
    records = []
    for line in file.read_bytes().splitlines(keepends=True):
        try:
            record = json.loads(line)
            if not line.endswith(b"\n") or record["schema"] not in (PREDICTION, ERROR):
                break
        except (ValueError, TypeError, KeyError):
            break
        records.append(record)
    return records
