"""Prediction records from images: in fixed batches, streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wbctool.device import cores
from wbctool.errors import ImageError
from wbctool.imaging.files import read_image
from wbctool.imaging.inputs import scaled_to
from wbctool.measuring.batches import Measuring
from wbctool.modeling.predictor import BATCH, missing_measures, prediction_record, probabilities, with_uncertainty
from wbctool.records import ERROR, Record, error_record
from wbctool.statistics.calibration import scaled

if TYPE_CHECKING:
    from wbctool.modeling.run_folder import Run


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


def _decoded(record: Record, needs: _Needs) -> _Decoded:
    if record["schema"] == ERROR:
        return _Decoded(error=record)
    try:
        if needs.mask and not isinstance(record.get("mask"), str):
            raise ImageError(missing_measures(record))
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
            row = missing_measures(record)
        if isinstance(row, str):
            decoded[index].error = error_record(record["id"], record["path"], row)
        else:
            found[index] = row
    return found
