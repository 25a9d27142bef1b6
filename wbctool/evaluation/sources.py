"""Where predictions come from, and what lies beside them: the run folder, its training, explanations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wbctool.console import note, warn
from wbctool.errors import InputError, UsageProblem
from wbctool.inputs.folders import read_inputs
from wbctool.inputs.run_folders import refuse_unfinished
from wbctool.records import ERROR, PREDICTION, SPLITS, Record
from wbctool.records.selection import Selection
from wbctool.records.storage import read_json
from wbctool.records.tally import Tally


@contextmanager
def reading(inputs: Iterable[str], selection: Selection) -> Iterator[tuple[Iterator[Record], Tally]]:
    """Read records of which none may be damaged.

    Yields:
        The records, and the tally of what was left out.

    Raises:
        InputError: at the end, a line was damaged.
    """
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
    """Return the file of predictions in a run folder; any other input as it is.

    Raises:
        InputError: the run folder is not finished.
    """
    if source == "-":
        return source
    refuse_unfinished(Path(source))
    file = Path(source) / "predictions.jsonl"
    return str(file) if file.exists() else source


def check_split(split: str | None) -> None:
    """Check that a split is one of `SPLITS`, `all` or None.

    Raises:
        UsageProblem: it is not.
    """
    if split not in (None, *SPLITS, "all"):
        raise UsageProblem(f"--split {split}: choose from {', '.join(SPLITS)}, all")


def check_prediction(record: Record, place: str) -> None:
    """Check that a record is a prediction whose class has a probability.

    Raises:
        InputError: naming the record and its line.
    """
    if record["schema"] != PREDICTION:
        raise InputError(f"{place}: {record['id']} is a {record['schema']} record; give what `wbctool predict` prints")
    if record["predicted"] not in record["probabilities"]:
        raise InputError(f"{place}: {record['id']}: the predicted class has no probability; predict again")


def training_records(run: str, split: str, source: str, trained_on: str | None, selection: Selection) -> list[Record]:
    """Read what a run was trained and validated on; for predictions of validation, what it was trained on.

    Args:
        run: its name, which may be the path of its folder.
        split: of the predictions.
        source: the input that the predictions are from.
        trained_on: a run folder, or an input that holds those records; None looks for the run folder's `dataset.jsonl`.
        selection: of labels and groups.

    Raises:
        InputError: there are none, or they are damaged.
    """
    files = [folder / "dataset.jsonl" for folder in _run_folders(run, source)]
    if trained_on and (Path(trained_on) / "dataset.jsonl").is_file():
        trained_on = str(Path(trained_on) / "dataset.jsonl")
    known_source = trained_on or next((str(file) for file in files if file.is_file()), None)
    if known_source is None:
        raise InputError(f"{source}: --audit needs the records of the images it was trained on; give --trained-on IN")
    splits = {"train", None} if split == "val" else {"train", "val", None}
    with reading([known_source], selection) as (records, _):
        known = [record for record in records if record["schema"] != ERROR and record.get("split") in splits]
    if not known:
        raise InputError(f"{known_source}: holds no images that were trained on")
    return known


def training_history(run: str, source: str) -> tuple[list[dict[str, Any]], int]:
    """Read the epochs of the run that predictions are of, and the number of the epoch that was kept.

    Returns:
        Nothing and 0 where the run has no folder here.

    Raises:
        InputError: they are damaged.
    """
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
    """Return, by image id, the paths of the pictures that `explain` made.

    Raises:
        InputError: the folder holds no records, or damaged ones.
    """
    with reading([str(folder)], Selection()) as (records, _):
        return {record["id"]: record["panel"] for record in records if "panel" in record}


def _run_folders(run: str, source: str) -> list[Path]:
    """Folders that may be the run's: the input, the folder that its predictions lie in, the run's name."""
    path = Path(source)
    beside = [path, *([path.parent] if path.name == "predictions.jsonl" else [])]
    return [*(beside if source != "-" else []), Path(run)]
