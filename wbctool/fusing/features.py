"""Features for other tools: one array, and the records of its rows."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbctool.console import loading, note
from wbctool.errors import InputError, UsageProblem
from wbctool.fusing.options import FusionOptions
from wbctool.fusing.run import read_images
from wbctool.pipeline.runner import folder_for, run_records
from wbctool.pipeline.step import BatchStep, Execution, added, same_id
from wbctool.records import ERROR, PREDICTION, Record, has_image
from wbctool.records.selection import Selection
from wbctool.records.storage import atomic

if TYPE_CHECKING:
    from wbctool.fusing.feature_table import FeatureTable
    from wbctool.modeling.fused import FusedArchitecture

_BATCH = 256  # images; a multiple of the batches of networks


@dataclass(frozen=True)
class ComputedFeatures:
    """What `compute_features` wrote."""

    file: Path  # `features.npz`
    images: int  # number of its rows
    families: dict[str, int]  # number of features by family
    failed: int  # number of inputs that have an error record, damaged lines among them


def compute_features(
    runs: Sequence[Path],
    inputs: Sequence[str],
    out: Path,
    options: FusionOptions | None = None,
    *,
    features: Path | None = None,
    selection: Selection | None = None,
    execution: Execution | None = None,
    on_record: Callable[[Record], None] | None = None,
) -> ComputedFeatures:
    """Write the features of images to `features.npz`, and their records.

    The file holds `features` (n, m), float32, NaN for missing ones, `names` and `families` of its columns, and `ids`,
    `labels` and `splits` of its rows, empty where a record has none. The row of a record is its `row`.

    Args:
        runs: run folders; may be none with `options.morphology`.
        inputs: folders, `.jsonl` record files, or `-`; labels are not needed.
        out: the output folder.
        options: which features are computed; those of trees do not matter.
        features: where features are kept, for fusions, too; None for a folder in `out`.
        selection: where labels and groups come from, and which classes are kept.
        execution: number of jobs; whether the output is made again, and whether progress is shown.
        on_record: called with each record, in the order of the inputs.

    Raises:
        UsageProblem: there is nothing to compute, or the folder was made with other options.
        InputError: a run or the images cannot be used.
    """
    execution = execution or Execution()
    options = (options or FusionOptions()).with_jobs(execution.jobs)
    if (out / "model.json").exists():
        raise UsageProblem(f"-o {out}: is a run folder; give another folder, so that nothing is lost")
    records, source, kept_in = read_images(runs, inputs, out, options, features, selection)
    images = _with_image(records, inputs, options)
    with loading(execution.quiet):
        from wbctool.fusing.feature_table import FeatureBatches, architecture_of, load_networks
    networks, options = load_networks(runs, options)
    parts = options.parts(bool(runs))
    settings = {"runs": [network.digest for network in networks], "parts": list(parts)}
    batches = FeatureBatches(networks, options, kept_in)
    step = BatchStep(
        name="xgboost-fuse --features-only",
        settings={**settings, "precision": options.precision, "inputs": source.names},
        expected=same_id,
        compose=added,
        made=(),
        origin="path",
        unchanged=lambda old, record: False,  # what is computed already is known to the folder of features
        batch_size=_BATCH,
        session=batches.session,
    )
    file, architecture = out / "features.npz", architecture_of(networks, parts)
    families = [family for _, family in architecture.features()]

    def write_array() -> dict[str, Any]:
        _write_array(file, batches.table(), architecture, batches.images)
        return {"features": len(families)}

    numbers = count()
    outcome = run_records(
        step,
        images,
        folder_for(step, out, execution),
        execution,
        on_record or (lambda record: None),
        source.tally,
        len(images),
        emits=False,
        on_result=lambda record: record if record["schema"] == ERROR else {**record, "row": next(numbers)},
        before_end=write_array,
    )
    return ComputedFeatures(file, outcome.records, dict(Counter(families)), outcome.failed)


def _with_image(records: Sequence[Record], inputs: Sequence[str], options: FusionOptions) -> list[Record]:
    """Return the records with an image, and those of errors; refuse inputs without any, or without needed masks."""
    kept = [record for record in records if record["schema"] == ERROR or has_image(record)]
    if all(record["schema"] == ERROR for record in kept):
        kinds = "predictions" if any(record["schema"] == PREDICTION for record in records) else "no images"
        raise InputError(f"{', '.join(inputs)}: holds {kinds}; give images, or records of these")
    if len(kept) < len(records):
        note(f"left out: {len(records) - len(kept):,} records without an image: predictions, or fields without a cell")
    if options.morphology and not any(isinstance(record.get("mask"), str) for record in kept):
        raise InputError("--morphology: no record carries a mask; give the records of `wbctool segment` or `crop`")
    return kept


def _write_array(path: Path, table: FeatureTable, architecture: FusedArchitecture, images: Sequence[Record]) -> None:
    """Write an .npz, its features in batches; its rows are the images that did not fail."""
    from wbctool.fusing.feature_table import BATCH_ROWS

    features, rows = table.reader(architecture), table.readable(range(len(images)))
    records = [images[row] for row in rows]
    texts = {
        "names": features.names,
        "families": [family for _, family in architecture.features()],
        "ids": [record["id"] for record in records],
        "labels": [record.get("label") or "" for record in records],
        "splits": [record.get("split") or "" for record in records],
    }
    with atomic(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        with archive.open(zipfile.ZipInfo("features.npy"), "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), len(features.names))}
            np.lib.format.write_array_header_2_0(member, header)
            for first in range(0, len(rows), BATCH_ROWS):
                member.write(np.ascontiguousarray(features.read(rows[first : first + BATCH_ROWS]), "<f4").tobytes())
        for name, values in texts.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.array(values, dtype=str), allow_pickle=False)
