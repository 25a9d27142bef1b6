"""`explain` over records: in fixed batches, streamed, resumable, into a folder of panels."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from wbctool.device import cores
from wbctool.errors import ImageError
from wbctool.explaining.explained_run import ExplainedRun, Explanation, rounded
from wbctool.explaining.explainer import MOST_PROBABLE
from wbctool.explaining.faithfulness import STEPS
from wbctool.explaining.options import LABEL, PREDICTED
from wbctool.explaining.pictures import panel_of
from wbctool.explaining.regions import Regions, regions_of
from wbctool.imaging.files import read_image, write_png
from wbctool.imaging.inputs import scaled_to
from wbctool.modeling.predictor import prediction_record
from wbctool.pipeline.output_folder import OutputFolder
from wbctool.records import ERROR, PREDICTION, Record, error_record
from wbctool.records.storage import write_bytes

RESERVED = ("maps", "sheets")
_BATCH, _PASSES = 64, 1024  # images at once; fewer where they come to more passes through the network
_SAID = ("uncertain", "views", "precision")  # of a prediction that another command made
_SHOWN = ("label", "value", "nucleus", "cells")  # of the input, in panels and figures
_MADE = ("schema", "run", "predicted", "confidence", "probabilities", "temperature", "explain", "panel", "maps")


@dataclass(frozen=True)
class Files:
    """Where files go, and which are made.

    Attributes:
        folder: the output.
        panels: whether pictures are.
        maps: whether the maps themselves are, as `.npz`.
    """

    folder: Path
    panels: bool
    maps: bool


@dataclass
class _Prepared:
    """An image as each run sees it, with its regions, by the side of the input; the class to explain."""

    images: dict[int, np.ndarray]
    regions: dict[int, Regions | None]
    of_class: int


@dataclass
class _Item:
    """A record on its way, what it is named, and what there is of it."""

    record: Record
    name: str | None = None
    done: Record | None = None
    fresh: bool = False
    prepared: _Prepared | None = None

    @property
    def failed(self) -> bool:
        return self.done is not None and self.done["schema"] == ERROR


def batch_size(subjects: Sequence[ExplainedRun]) -> int:
    """How many images are explained together: so few that progress shows, and a batch can be done again."""
    passes, options = 0, subjects[0].options
    for subject in subjects:
        passes += subject.explainer.passes + 2 * (STEPS + 1) * len(options.methods) * options.faithfulness
    return int(np.clip(_PASSES // passes, 1, _BATCH))


def explain(
    subjects: Sequence[ExplainedRun],
    records: Iterable[Record],
    folder: OutputFolder,
    panels: bool = True,
    maps: bool = False,
    shard: tuple[int, int] | None = None,
) -> Iterator[tuple[Record, bool]]:
    """Prediction records with explanations (and error records), in order, and whether each is new.

    Batches are cut by position in the input, so a resumed run computes the same batches and so the
    same bytes.

    Args:
        subjects: the run, and the one it is compared with.
        records: with absolute paths; those of errors pass through.
        folder: where files go.
        panels: whether there is a picture of each image.
        maps: whether the maps themselves are kept.
        shard: (i, n): only each n-th record from the i-th.
    """
    stream = _items(records, folder, shard)
    size = batch_size(subjects)
    batches = iter(lambda: list(islice(stream, size)), [])
    with ThreadPoolExecutor(max_workers=min(16, cores())) as pool:
        for batch in batches:
            _prepare([item for item in batch if item.done is None], subjects, pool)
            if any(item.prepared for item in batch):
                # all of the batch, so that its numbers do not depend on what was done before
                _prepare([item for item in batch if item.done and item.name and not item.failed], subjects, pool)
                _explain_batch(subjects, batch, Files(folder.path, panels, maps), pool)
            for item in batch:
                assert item.done is not None
                yield item.done, item.fresh


def _items(records: Iterable[Record], folder: OutputFolder, shard: tuple[int, int] | None) -> Iterator[_Item]:
    for index, record in enumerate(records):
        mine = shard is None or index % shard[1] == shard[0] - 1
        if record["schema"] == ERROR:
            if mine:
                yield _Item(record, done=record)
            continue
        if record["schema"] == PREDICTION:
            record = {key: value for key, value in record.items() if key not in (*_MADE[1:], *_SAID)}
        try:
            name = folder.names.take(record["id"])
            old = folder.finished(record, {record["id"]}) if mine else None
        except ImageError as error:
            if mine:
                yield _Item(record, done=error_record(record["id"], record["path"], str(error)), fresh=True)
            continue
        if mine:
            done = None
            if old and all(old[0].get(key) == record.get(key) for key in _SHOWN):
                done = {**record, **{key: old[0][key] for key in _MADE if key in old[0]}}
            yield _Item(record, name, done, fresh=done is None)


def _prepare(items: Sequence[_Item], subjects: Sequence[ExplainedRun], pool: ThreadPoolExecutor) -> None:
    """Decode images, and all that is needed of their records; those that fail end as error records."""
    sizes = sorted({subject.size for subject in subjects})

    def prepare(item: _Item) -> None:
        try:
            item.prepared = _prepared(item.record, sizes, subjects[0])
        except ImageError as error:
            item.done = error_record(item.record["id"], item.record["path"], str(error))
            item.fresh = True

    list(pool.map(prepare, items))


def _prepared(record: Record, sizes: Sequence[int], subject: ExplainedRun) -> _Prepared:
    image, classes, of_class = read_image(record["path"]), subject.run.classes, subject.options.of_class
    name = record.get("label") if of_class == LABEL and LABEL not in classes else of_class
    if name not in classes and name != PREDICTED:
        raise ImageError(f"{record['id']}: its label is {name}, no class of {subject.name}; give --class NAME")
    return _Prepared(
        {size: scaled_to(image, size) for size in sizes},
        {size: regions_of(record, image.shape[:2], size) for size in sizes},
        classes.index(name) if name in classes else MOST_PROBABLE,
    )


def _explain_batch(
    subjects: Sequence[ExplainedRun], batch: list[_Item], files: Files, pool: ThreadPoolExecutor
) -> None:
    """Set `done` of each item that is prepared."""
    items = [(item, item.prepared) for item in batch if item.prepared]
    findings = zip(*_findings(subjects, [prepared for _, prepared in items]), strict=True)
    list(pool.map(lambda own, found: _finish(own[0], own[1], found, subjects, files), items, findings))


def _findings(subjects: Sequence[ExplainedRun], prepared: Sequence[_Prepared]) -> list[list[Explanation]]:
    """By run, what it finds in each image; all runs explain the class that the first one does."""
    classes = np.array([one.of_class for one in prepared])
    found: list[list[Explanation]] = []
    for subject in subjects:
        if found:
            names = [subjects[0].run.classes[one.class_number] for one in found[0]]
            classes = np.array([subject.run.classes.index(name) for name in names])
        images = np.stack([one.images[subject.size] for one in prepared])
        found.append(subject.explain(images, classes, [one.regions[subject.size] for one in prepared]))
    return found


def _finish(
    item: _Item, prepared: _Prepared, findings: Sequence[Explanation], subjects: Sequence[ExplainedRun], files: Files
) -> None:
    """Write the files of one image, and set its record."""
    first, found = subjects[0], findings[0]
    regions, classes = prepared.regions[first.size], first.run.classes
    record = prediction_record(item.record, first.name, classes, found.probabilities, None, first.run.temperature)
    told: dict[str, Any] = {"class": classes[found.class_number], **_told(first, found)}
    if regions:
        told["area"] = {name: rounded(float(region.mean(dtype=np.float64))) for name, region in regions.items()}
    if len(subjects) > 1:
        other, theirs = subjects[1], findings[1]
        best = int(theirs.probabilities.argmax())
        about = {
            "run": other.name,
            "predicted": other.run.classes[best],
            "confidence": rounded(theirs.probabilities[best]),
        }
        told["compare"] = {**about, **_told(other, theirs)}
    record["explain"] = told
    if files.panels:
        panel = files.folder / f"{item.name}.png"
        write_png(panel, panel_of(item.record, prepared.images[first.size], regions, subjects, findings))
        record["panel"] = str(panel)
    if files.maps:
        path = files.folder / "maps" / f"{item.name}.npz"
        held = io.BytesIO()
        np.savez_compressed(held, **_arrays(findings))
        write_bytes(path, held.getvalue())
        record["maps"] = str(path)
    item.done = record


def _told(subject: ExplainedRun, found: Explanation) -> dict[str, Any]:
    explainer = subject.explainer
    told: dict[str, Any] = {
        "probability": rounded(found.probabilities[found.class_number]),
        "layers": list(explainer.layers),
    }
    if explainer.views != 1:
        told["views"] = explainer.views
    told |= subject.options.parameters
    told["methods"] = found.scores
    return {**told, "agreement": found.agreement} if found.agreement else told


def _arrays(findings: Sequence[Explanation]) -> dict[str, Any]:
    named = dict(zip(("", "compare-"), findings, strict=False))
    return {f"{prefix}{method}": map_ for prefix, found in named.items() for method, map_ in found.maps.items()}
