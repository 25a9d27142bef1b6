"""Features for other tools: one array, and the records of its rows."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wbctool.console import note
from wbctool.device import pick_device
from wbctool.errors import InputError, UsageProblem
from wbctool.fusing.run import Choices, Place, networks_of, precision_of
from wbctool.fusing.sources import Measures
from wbctool.fusing.table import tabulate
from wbctool.modeling.fused import FusedArchitecture, run_names
from wbctool.modeling.run_folder import Run
from wbctool.pipeline.output_folder import OutputFolder
from wbctool.records import ERROR, PREDICTION, Record, error_record, has_image
from wbctool.records.storage import atomic

_BATCH = 4096


def write_features(
    records: Sequence[Record], runs: Sequence[Run], choices: Choices, place: Place, inputs: Sequence[str]
) -> tuple[list[Record], dict[str, int], int]:
    """Write `features.npz` and `records.jsonl`.

    The file holds `features` (n, m) float32 with NaN for what is missing, `names` and `families` of its columns,
    and `ids`, `labels`, `splits` of its rows, empty where a record has none. `row` of a record is its row.

    Args:
        records: with absolute paths; they need no label.
        runs: loaded on their device.
        choices: what is computed.
        place: where it goes.
        inputs: their names, for `run.json`.

    Returns:
        The records, the number of features by family, and of inputs that failed.

    Raises:
        UsageProblem, InputError: there is nothing to compute, or the folder was made with other settings.
    """
    parts = choices.parts(runs)
    if not parts:
        raise UsageProblem("nothing to compute: give a run folder before the images, or --morphology")
    if (place.out / "model.json").exists():
        raise UsageProblem(f"-o {place.out}: is a run folder; give another folder, so that nothing is lost")
    kept = [record for record in records if record["schema"] == ERROR or has_image(record)]
    if all(record["schema"] == ERROR for record in kept):
        kinds = "predictions" if any(record["schema"] == PREDICTION for record in records) else "no images"
        raise InputError(f"{', '.join(inputs)}: holds {kinds}; give images, or records of these")
    if len(kept) < len(records):
        note(f"left out: {len(records) - len(kept):,} records without an image: predictions, or fields without a cell")
    if choices.morphology and not any(isinstance(record.get("mask"), str) for record in kept):
        raise InputError("--morphology: no record carries a mask; give the records of `wbctool segment` or `crop`")
    device = pick_device(choices.settings.device)
    precision = precision_of(runs, choices.precision, device)
    networks = networks_of(runs, precision, device)
    digests = [network.digest for network in networks]
    settings = {"runs": digests, "parts": list(parts), "precision": precision, "inputs": list(inputs)}
    folder = OutputFolder(place.out, "xgboost-fuse --features-only", settings, None, place.overwrite)
    images = [record for record in kept if record["schema"] != ERROR]
    table = tabulate(images, networks, Measures(place.jobs) if choices.morphology else None, place.kept, place.quiet)
    architecture = FusedArchitecture(
        fused="xgboost",
        members=tuple(run.model.architecture for run in runs),
        names=run_names([run.path for run in runs]),
        widths=tuple(network.features for network in networks),
        parts=parts,
        start=(),
        classes=(),
        size=0,
    )
    good = np.array([number for number in range(len(images)) if number not in table.failed], np.int64)
    names, families = zip(*architecture.features(), strict=True)
    held = [images[number] for number in good]
    texts = {
        "names": names,
        "families": families,
        "ids": [record["id"] for record in held],
        "labels": [record.get("label") or "" for record in held],
        "splits": [record.get("split") or "" for record in held],
    }
    _write(place.out / "features.npz", table.reader(parts), good, len(names), texts)
    made, number, row = [], 0, 0
    for record in kept:
        if record["schema"] != ERROR:
            reason = table.failed.get(number)
            number += 1
            record = error_record(record["id"], record["path"], reason) if reason else {**record, "row": row}
            row += reason is None
        folder.write(record)
        made.append(record)
    failed = len(table.failed)
    counts = {"inputs": len(kept), "records": len(good), "failed": failed}
    folder.finish(counts=counts, features=len(names))
    return made, dict(Counter(families)), failed


def _write(
    path: Path, read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, width: int, texts: dict[str, Sequence[str]]
) -> None:
    """One .npz, its rows read and written in batches."""
    with atomic(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        with archive.open(zipfile.ZipInfo("features.npy"), "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), width)}
            np.lib.format.write_array_header_2_0(member, header)
            for begin in range(0, len(rows), _BATCH):
                member.write(np.ascontiguousarray(read(rows[begin : begin + _BATCH]), "<f4").tobytes())
        for name, values in texts.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.array(values, dtype=str), allow_pickle=False)
