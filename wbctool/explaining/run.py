"""The whole of `explain`: an output folder with panels, records, sheets and scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from wbctool.console import Progress, emit_while_read, note
from wbctool.errors import UsageProblem
from wbctool.explaining.explained_run import ExplainedRun
from wbctool.explaining.pictures import Sheets
from wbctool.explaining.step import RESERVED, explain
from wbctool.explaining.summary import ScoreCollector
from wbctool.modeling.run_folder import digest_of
from wbctool.pipeline.output_folder import OutputFolder
from wbctool.pipeline.runner import lies_in, parse_shard
from wbctool.records import ERROR, PREDICTION, Record, has_image, preparation_of
from wbctool.records.storage import write_json


@dataclass(frozen=True)
class Making:
    """What is made, and how.

    Attributes:
        panels: a picture of each image.
        maps: the maps themselves.
        sheet: panels on a contact sheet, None for no sheets.
        split: of records that carry one, which are explained; `all` for any.
        shard: `i/n`, or None.
        overwrite: use nothing of what is there.
        quiet: no progress.
        emits: whether records go to stdout.
    """

    panels: bool = True
    maps: bool = False
    sheet: int | None = None
    split: str = "all"
    shard: str | None = None
    overwrite: bool = False
    quiet: bool = False
    emits: bool = False


@dataclass
class Report:
    """What came of it.

    Attributes:
        counts: `done`, `reused`, `failed`, `old errors`; `of other splits`, `without a cell`, which were left out;
            `without a mask`; `blank`, of maps.
        otherwise: by run, how many images were prepared otherwise than its own.
        summary: as `scores.json` has it.
    """

    counts: Counter[str] = field(default_factory=Counter)
    otherwise: Counter[str] = field(default_factory=Counter)
    summary: dict[str, Any] = field(default_factory=dict)


def explain_into(
    out: Path, subjects: Sequence[ExplainedRun], records: Iterable[Record], inputs: Sequence[str], making: Making
) -> Report:
    """Explain records into an output folder; where there are none to explain, it is not made.

    Args:
        out: the folder.
        subjects: the run, and the one it is compared with.
        records: with absolute paths.
        inputs: their names, for `run.json`.
        making: what is made.

    Raises:
        UsageProblem: the folder was made with other settings, or holds an input.
        InputError: another command is writing it.
    """
    if (out / "model.json").exists():
        raise UsageProblem(f"-o {out}: is a run folder; give another folder, so that nothing is lost")
    _check_classes(subjects)
    shard = parse_shard(making.shard)
    settings = {
        **subjects[0].options.settings(),
        "precision": [subject.explainer.precision for subject in subjects],
        "models": [digest_of(subject.run.path, "model.json", "weights.safetensors") for subject in subjects],
        "panels": making.panels,
        "maps": making.maps,
        "split": making.split,
        "inputs": list(inputs),
        "shards": shard[1] if shard else None,
    }
    report, collected, sheets = Report(), ScoreCollector(), Sheets(making.sheet or 0)
    emits = making.emits
    usable = _usable(records, subjects, out, making.split, report)
    first = next(usable, None)
    if first is None:
        return report
    folder = OutputFolder(out, "explain", settings, shard, making.overwrite, "path", RESERVED)
    with Progress("explain", "images", making.quiet) as progress:
        for record, fresh in explain(subjects, chain([first], usable), folder, making.panels, making.maps, shard):
            failed = record["schema"] == ERROR
            report.counts["failed" if fresh else "old errors"] += failed
            folder.write(record)
            if not failed:
                report.counts["done"] += 1
                report.counts["reused"] += not fresh
                report.counts["without a mask"] += "area" not in record["explain"]
                collected.add(record)
                if making.sheet:
                    sheets.add(record)
            emits = emits and emit_while_read(record)
            progress.step(failed)
            if failed and fresh and not making.quiet:
                progress.clear()
                note(f"failed: {record['error']}")
    if making.sheet or making.overwrite:
        sheets.write(folder.path / "sheets", " − ".join(subject.name for subject in reversed(subjects)))
    report.counts["blank"] = collected.blank
    report.summary = collected.summary()
    ending = f"-{shard[0]}-of-{shard[1]}" if shard else ""
    write_json(folder.path / f"scores{ending}.json", report.summary)
    counts = report.counts
    total = counts["done"] + counts["failed"] + counts["old errors"]
    folder.finish({"inputs": total, "records": counts["done"], "failed": counts["failed"]})
    return report


def _check_classes(subjects: Sequence[ExplainedRun]) -> None:
    """Refuse runs of which one may explain a class that the other does not know."""
    first = subjects[0]
    if first.options.of_class in first.run.classes:
        return
    for other in subjects[1:]:
        unknown = [name for name in first.run.classes if name not in other.run.classes]
        if unknown:
            some = ", ".join(unknown[:6])
            raise UsageProblem(f"--compare {other.name}: knows no class {some}; give --class NAME, one that both know")


def _usable(
    records: Iterable[Record], subjects: Sequence[ExplainedRun], out: Path, split: str, report: Report
) -> Iterator[Record]:
    for record in records:
        if record["schema"] != ERROR:
            if split not in ("all", record.get("split", split)):
                report.counts["of other splits"] += 1
                continue
            if record["schema"] != PREDICTION and not has_image(record):
                report.counts["without a cell"] += 1
                continue
            if lies_in(record["path"], out):
                raise UsageProblem(
                    f"-o {out}: holds the input {record['path']}; give another folder, so that nothing is lost"
                )
            for subject in subjects:
                prepared = subject.run.info.get("preparation", {})
                report.otherwise[subject.name] += preparation_of(record) != prepared
        yield record
