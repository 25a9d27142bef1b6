"""`explain` as a batch step: decode, map, score, draw."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wbctool.device import cores, pick_device
from wbctool.errors import ImageError, UsageProblem
from wbctool.explaining.explained_run import ExplainedRun, Explanation
from wbctool.explaining.explainer import MOST_PROBABLE
from wbctool.explaining.faithfulness import STEPS
from wbctool.explaining.options import LABEL, PREDICTED, ExplanationOutput, ExplanationResult, MapOptions
from wbctool.explaining.panels import Sheets, panel_of
from wbctool.explaining.scores import Regions, regions_of, rounded
from wbctool.explaining.summary import ScoreCollector
from wbctool.imaging.files import read_image, write_png
from wbctool.imaging.inputs import scaled_to
from wbctool.modeling.predictor import prediction_record
from wbctool.modeling.run_folder import digest_of, load
from wbctool.pipeline.step import BatchStep, BatchWork, Execution, Named, parse_shard, same_id
from wbctool.records import ERROR, PREDICTION, Record, error_record
from wbctool.records.storage import write_bytes, write_json

MAPS_FOLDER, SHEETS_FOLDER = "maps", "sheets"
MADE_KEYS = ("schema", "run", "predicted", "confidence", "probabilities", "temperature", "explain", "panel", "maps")
_MAX_BATCH, _MAX_PASSES = 64, 1024  # images per batch; fewer where they need more passes through the network
_PREDICTION_KEYS = (*MADE_KEYS[1:], "uncertain", "views", "precision")  # of an input that is a prediction
_INPUT_KEYS = ("label", "value", "nucleus", "cells")  # of the input record, shown in panels and scores


def load_runs(paths: Sequence[Path], maps: MapOptions, device_name: str, precision: str) -> list[ExplainedRun]:
    """Load the run to explain, and the one that it is compared with, which has to know the class, too."""
    device = pick_device(device_name)
    subjects = [ExplainedRun(load(path, device), maps, device, precision) for path in paths]
    first, *others = subjects
    for other in others if maps.of_class not in first.run.classes else ():
        unknown = [name for name in first.run.classes if name not in other.run.classes]
        if unknown:
            some = ", ".join(unknown[:6])
            raise UsageProblem(f"--compare {other.name}: knows no class {some}; give --class NAME, one that both know")
    return subjects


class Collector:
    """Collects explained records; at the end writes contact sheets and `scores.json`."""

    def __init__(
        self,
        out: Path,
        subjects: Sequence[ExplainedRun],
        output: ExplanationOutput,
        execution: Execution,
        result: ExplanationResult,
    ) -> None:
        self._out, self._output, self._execution, self._result = out, output, execution, result
        self._title = " − ".join(subject.name for subject in reversed(subjects))
        self._collected, self._sheets = ScoreCollector(), Sheets(output.sheet or 0)

    def add(self, record: Record) -> None:
        """Take an output record into account."""
        if record["schema"] == ERROR:
            return
        self._collected.add(record)
        self._result.counts["without a mask"] += "area" not in record["explain"]
        if self._output.sheet:
            self._sheets.add(record)

    def write(self) -> dict[str, Any]:
        """Write sheets and scores; nothing is added to `run.json`."""
        if self._output.sheet or self._execution.overwrite:
            self._sheets.write(self._out / SHEETS_FOLDER, self._title)
        self._result.counts["blank"] = self._collected.blank
        self._result.summary = self._collected.summary()
        shard = parse_shard(self._execution.shard)
        ending = f"-{shard[0]}-of-{shard[1]}" if shard else ""
        write_json(self._out / f"scores{ending}.json", self._result.summary)
        return {}


def explain_step(
    subjects: Sequence[ExplainedRun], output: ExplanationOutput, out: Path, split: str, inputs: Sequence[str]
) -> BatchStep:
    """The step that explains images by one run, or compares two; `inputs` are their names for `run.json`."""
    options = subjects[0].options
    settings = {
        **options.model_dump(exclude={"parameters"}),
        **options.parameters,
        "precision": [subject.explainer.precision for subject in subjects],
        "models": [digest_of(subject.run.path, "model.json", "weights.safetensors") for subject in subjects],
        "panels": not output.no_panels,
        "maps": output.maps,
        "split": split,
        "inputs": list(inputs),
    }
    # few enough images per batch that progress shows, and that a batch can be repeated
    of_scores = 2 * (STEPS + 1) * len(options.methods) * options.faithfulness
    passes = sum(subject.explainer.passes + of_scores for subject in subjects)
    return BatchStep(
        name="explain",
        settings=settings,
        expected=same_id,
        compose=_composed,
        made=MADE_KEYS,
        origin="path",
        reserved=(MAPS_FOLDER, SHEETS_FOLDER),
        unchanged=lambda old, record: all(old.get(key) == record.get(key) for key in _INPUT_KEYS),
        batch_size=int(np.clip(_MAX_PASSES // passes, 1, _MAX_BATCH)),
        session=_Explaining(subjects, output, out.resolve()).session,
    )


def _composed(record: Record, made: Record) -> Record:
    """The record of an explained image, without what an earlier prediction said of it."""
    kept = {key: value for key, value in record.items() if key not in _PREDICTION_KEYS}
    return {**(kept if record["schema"] == PREDICTION else record), **made}


@dataclass
class _Prepared:
    """An image that can be explained."""

    record: Record
    name: str  # of its output
    images: dict[int, np.ndarray]  # by side in pixels, the input of each run, (side, side, 3), uint8
    regions: dict[int, Regions | None]  # by side, where nucleus and cell are; None without a mask
    class_number: int  # the class to explain, or `MOST_PROBABLE`


class _Explaining:
    """Explains batches by the first run, or compares two, into files of a folder."""

    def __init__(self, subjects: Sequence[ExplainedRun], output: ExplanationOutput, folder: Path) -> None:
        self.subjects, self.output, self.folder = subjects, output, folder
        self.sizes = sorted({subject.size for subject in subjects})

    @contextmanager
    def session(self) -> Iterator[BatchWork]:
        """Open threads; give the function that explains a batch."""
        with ThreadPoolExecutor(max_workers=min(16, cores())) as pool:
            yield partial(self._explain, pool)

    def _explain(self, pool: ThreadPoolExecutor, batch: Sequence[Named]) -> list[list[Record]]:
        """What is added to the record of each image, or an error record."""
        prepared = list(pool.map(self._prepare, batch))
        readable = [image for image in prepared if isinstance(image, _Prepared)]
        findings = zip(*self._findings(readable), strict=True) if readable else ()
        made = pool.map(self._make, readable, findings)
        return [[next(made) if isinstance(image, _Prepared) else image] for image in prepared]

    def _prepare(self, item: Named) -> _Prepared | Record:
        record, name = item
        subject = self.subjects[0]
        classes, of_class = subject.run.classes, subject.options.of_class
        try:
            image = read_image(record["path"])
            wanted = record.get("label") if of_class == LABEL and LABEL not in classes else of_class
            if wanted not in classes and wanted != PREDICTED:
                raise ImageError(
                    f"{record['id']}: its label is {wanted}, no class of {subject.name}; give --class NAME"
                )
            return _Prepared(
                record,
                name,
                {size: scaled_to(image, size) for size in self.sizes},
                {size: regions_of(record, image.shape[:2], size) for size in self.sizes},
                classes.index(wanted) if wanted in classes else MOST_PROBABLE,
            )
        except ImageError as error:
            return error_record(record["id"], record["path"], str(error))

    def _findings(self, prepared: Sequence[_Prepared]) -> list[list[Explanation]]:
        """By run, what it finds in each image; all runs explain the class that the first one does."""
        classes = np.array([image.class_number for image in prepared])
        findings: list[list[Explanation]] = []
        for subject in self.subjects:
            if findings:
                names = [self.subjects[0].run.classes[one.class_number] for one in findings[0]]
                classes = np.array([subject.run.classes.index(name) for name in names])
            images = np.stack([image.images[subject.size] for image in prepared])
            findings.append(subject.explain(images, classes, [image.regions[subject.size] for image in prepared]))
        return findings

    def _make(self, prepared: _Prepared, findings: Sequence[Explanation]) -> Record:
        """Write the files of one image; what is added to its record."""
        first, shown = self.subjects[0], findings[0]
        regions, classes = prepared.regions[first.size], first.run.classes
        made = prediction_record({}, first.name, classes, shown.probabilities, first.run.temperature)
        made["explain"] = self._explanation(regions, findings)
        if not self.output.no_panels:
            panel = self.folder / f"{prepared.name}.png"
            image = prepared.images[first.size]
            write_png(panel, panel_of(prepared.record, image, regions, self.subjects, findings))
            made["panel"] = str(panel)
        if self.output.maps:
            path = self.folder / MAPS_FOLDER / f"{prepared.name}.npz"
            maps: dict[str, Any] = {}
            for prefix, each in zip(("", "compare-"), findings, strict=False):
                maps |= {f"{prefix}{method}": map_ for method, map_ in each.maps.items()}
            stream = io.BytesIO()
            np.savez_compressed(stream, **maps)
            write_bytes(path, stream.getvalue())
            made["maps"] = str(path)
        return made

    def _explanation(self, regions: Regions | None, findings: Sequence[Explanation]) -> dict[str, Any]:
        """The `explain` object of a record."""
        first, shown = self.subjects[0], findings[0]
        explanation: dict[str, Any] = {"class": first.run.classes[shown.class_number], **_scores(first, shown)}
        if regions:
            areas = {name: float(region.mean(dtype=np.float64)) for name, region in regions.items()}
            explanation["area"] = {name: rounded(area) for name, area in areas.items()}
        for other, theirs in zip(self.subjects[1:], findings[1:], strict=True):
            best = int(theirs.probabilities.argmax())
            explanation["compare"] = {
                "run": other.name,
                "predicted": other.run.classes[best],
                "confidence": rounded(theirs.probabilities[best]),
                **_scores(other, theirs),
            }
        return explanation


def _scores(subject: ExplainedRun, explanation: Explanation) -> dict[str, Any]:
    explainer = subject.explainer
    scores: dict[str, Any] = {
        "probability": rounded(explanation.probabilities[explanation.class_number]),
        "layers": list(explainer.layers),
    }
    if explainer.views != 1:
        scores["views"] = explainer.views
    scores |= subject.options.parameters
    scores["methods"] = explanation.scores
    return {**scores, "agreement": explanation.agreement} if explanation.agreement else scores
