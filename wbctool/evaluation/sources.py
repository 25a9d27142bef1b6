"""Where predictions come from, and what lies beside them: the run folder, its training, explanations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wbctool.console import note, warn
from wbctool.errors import InputError, check_choice
from wbctool.inputs.folders import read_inputs
from wbctool.inputs.run_folders import refuse_unfinished
from wbctool.records import ERROR, PREDICTION, SPLITS, Record
from wbctool.records.selection import Selection
from wbctool.records.storage import read_json
from wbctool.records.tally import Tally


@contextmanager
def reading(inputs: Iterable[str], selection: Selection) -> Iterator[tuple[Iterator[Record], Tally]]:
    """Read records, with the tally of what was left out; at the end, refuse damaged lines."""
    tally = Tally()
    try:
        yield read_inputs(inputs, selection, tally), tally
    finally:
        tally.refuse_damage()


def note_selection(tally: Tally, source: str) -> None:
    """Say on stderr which groups and labels the selection did not find."""
    if count := tally.counts["group not matched"]:
        note(f"{source}: {count:,} ids --group-regex does not match; each is a group of its own")
    for line in tally.unused_options():
        warn(line)


def predictions_file(source: str) -> str:
    """Return the file of predictions in a run folder, which must be finished; any other input as it is."""
    if source == "-":
        return source
    refuse_unfinished(Path(source))
    file = Path(source) / "predictions.jsonl"
    return str(file) if file.exists() else source


def check_split(split: str | None) -> None:
    """Check that a split is one of `SPLITS`, `all` or None."""
    if split is not None:
        check_choice("--split", split, (*SPLITS, "all"))


def check_prediction(record: Record, place: str) -> None:
    """Check that the record at a place is a prediction whose class has a probability."""
    if record["schema"] != PREDICTION:
        raise InputError(f"{place}: {record['id']} is a {record['schema']} record; give what `wbctool predict` prints")
    if record["predicted"] not in record["probabilities"]:
        raise InputError(f"{place}: {record['id']}: the predicted class has no probability; predict again")


def training_records(run: str, split: str, source: str, trained_on: str | None, selection: Selection) -> list[Record]:
    """Read what a run was trained and validated on; for predictions of validation, what it was trained on.

    That is `trained_on`, a run folder or an input that holds those records, else `dataset.jsonl` of the run's folder.
    """
    folders = [Path(trained_on)] if trained_on else _run_folders(run, source)
    files = (folder / "dataset.jsonl" for folder in folders)
    known_source = next((str(file) for file in files if file.is_file()), trained_on)
    if not known_source:
        raise InputError(f"{source}: --audit needs the records of the images it was trained on; give --trained-on IN")
    splits = {"train", None} if split == "val" else {"train", "val", None}
    with reading([known_source], selection) as (records, _):
        known = [record for record in records if record["schema"] != ERROR and record.get("split") in splits]
    if not known:
        raise InputError(f"{known_source}: holds no images that were trained on")
    return known


def training_history(run: str, source: str) -> tuple[list[dict[str, Any]], int]:
    """Read a run's epochs, and the number of the epoch that was kept; nothing and 0 where it has no folder here."""
    for folder in _run_folders(run, source):
        file = folder / "history.jsonl"
        if file.is_file() and (folder / "model.json").is_file():
            try:
                history = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
                if not all({"epoch", "phase"} <= set(row) for row in history):
                    raise ValueError("a line without epoch or phase")
            except (ValueError, TypeError) as error:
                raise InputError(f"{file}: damaged ({error}); train it again") from None
            best = read_json(folder / "model.json", "train it again").get("best_epoch")
            return history, best if isinstance(best, int) else 0
    return [], 0


def explanation_panels(folder: Path) -> dict[str, str]:
    """Return, by image id, the paths of the pictures that `explain` made."""
    with reading([str(folder)], Selection()) as (records, _):
        return {record["id"]: record["panel"] for record in records if "panel" in record}


def _run_folders(run: str, source: str) -> list[Path]:
    """Return folders that may be the run's: the input, the folder that its predictions lie in, the run's name."""
    path = Path(source)
    beside = [path, *([path.parent] if path.name == "predictions.jsonl" else [])]
    return [*(beside if source != "-" else []), Path(run)]
