"""Features for other tools: one array, and the records of its rows."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wbctool.console import loading, note
from wbctool.errors import InputError, UsageProblem
from wbctool.fusing.options import FusionOptions
from wbctool.fusing.run import read_images
from wbctool.pipeline.output_folder import OutputFolder
from wbctool.pipeline.step import Execution
from wbctool.records import ERROR, PREDICTION, Record, error_record, has_image
from wbctool.records.selection import Selection
from wbctool.records.storage import atomic

if TYPE_CHECKING:
    from wbctool.fusing.feature_table import FeatureTable
    from wbctool.modeling.fused import FusedArchitecture


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
    for line in [] if execution.quiet else source.tally.notes():
        note(line)
    records = _with_image(records, inputs, options)
    with loading(execution.quiet):
        from wbctool.fusing.feature_table import architecture_of, compute_table, load_networks
    networks, options = load_networks(runs, options)
    parts = options.parts(bool(runs))
    digests = [network.digest for network in networks]
    settings = {"runs": digests, "parts": list(parts), "precision": options.precision, "inputs": source.names}
    folder = OutputFolder(out, "xgboost-fuse --features-only", settings, None, execution.overwrite)
    images = [record for record in records if record["schema"] != ERROR]
    table = compute_table(images, networks, options, kept_in, execution.quiet)
    architecture = architecture_of(networks, parts)
    file, families = out / "features.npz", [family for _, family in architecture.features()]
    count = _write_array(file, table, architecture, images)
    for record in _with_rows(records, table.failed):
        folder.write(record)
        if on_record:
            on_record(record)
    counts = {"inputs": len(records), "records": count, "failed": len(table.failed)}
    folder.finish(counts=counts, features=len(families))
    if table.failed and not execution.quiet:
        for _, reason in sorted(table.failed.items()):
            note(f"failed: {reason}")
        note(f"{len(table.failed):,} inputs failed; {out} holds an error record for each")
    failed = len(table.failed) + source.tally.counts["damaged"]
    return ComputedFeatures(file, count, dict(Counter(families)), failed)


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


def _with_rows(records: Sequence[Record], failed: Mapping[int, str]) -> Iterator[Record]:
    """Yield records with their `row` in the array; error records in place of those that failed."""
    number = row = 0
    for record in records:
        if record["schema"] != ERROR:
            reason = failed.get(number)
            number += 1
            record = error_record(record["id"], record["path"], reason) if reason else {**record, "row": row}
            row += reason is None
        yield record


def _write_array(path: Path, table: FeatureTable, architecture: FusedArchitecture, images: Sequence[Record]) -> int:
    """Write an .npz, its features in batches, and return the number of rows: of images that did not fail."""
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
    return len(rows)
