"""What lies beside predictions: the run folder they are of, its training, its explanations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wbctool.errors import InputError
from wbctool.inputs.folders import read_inputs
from wbctool.inputs.run_folders import refuse_unfinished
from wbctool.records import ERROR, Record
from wbctool.records.selection import Selection
from wbctool.records.storage import read_json
from wbctool.records.tally import Tally


def predictions_file(given: str) -> str:
    """The file of predictions in a run folder; elsewhere, what is given.

    Raises:
        InputError: the run folder is not finished.
    """
    if given != "-":
        refuse_unfinished(Path(given))
    file = Path(given) / "predictions.jsonl"
    return str(file) if given != "-" and file.exists() else given


def training_records(run: str, split: str, given: str, trained_on: str | None, selection: Selection) -> list[Record]:
    """What a run was trained and validated on; for predictions of validation, what it was trained on.

    Args:
        run: its name, which may be the path of its folder.
        split: of the predictions.
        given: where they were read.
        trained_on: a run folder, or an input that holds those records; None looks for the run folder's `dataset.jsonl`.
        selection: of labels and groups.

    Raises:
        InputError: there are none, or they are damaged.
    """
    places = [folder / "dataset.jsonl" for folder in _run_folders(run, given)]
    if trained_on and (Path(trained_on) / "dataset.jsonl").is_file():
        trained_on = str(Path(trained_on) / "dataset.jsonl")
    source = trained_on or next((str(place) for place in places if place.is_file()), None)
    if source is None:
        raise InputError(f"{given}: --audit needs the records of the images it was trained on; give --trained-on IN")
    tally = Tally()
    splits = {"train", None} if split == "val" else {"train", "val", None}
    records = [
        record
        for record in read_inputs([source], selection, tally)
        if record["schema"] != ERROR and record.get("split") in splits
    ]
    tally.refuse_damage()
    if not records:
        raise InputError(f"{source}: holds no images that were trained on")
    return records


def training_history(run: str, given: str) -> tuple[list[dict[str, Any]], int]:
    """The epochs of the run that predictions are of, and the one kept; none where it has no folder here.

    Raises:
        InputError: they are damaged.
    """
    for folder in _run_folders(run, given):
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


def panels(folder: Path) -> dict[str, str]:
    """By the ids of images, the pictures that explain their predictions.

    Raises:
        InputError: the folder holds no records, or damaged ones.
    """
    tally = Tally()
    found = {r["id"]: r["panel"] for r in read_inputs([str(folder)], Selection(), tally) if "panel" in r}
    tally.refuse_damage()
    return found


def _run_folders(run: str, given: str) -> list[Path]:
    """Where the folder of a run may be: what is given, what its own predictions lie in, what the run is called."""
    own = [Path(given), *([Path(given).parent] if Path(given).name == "predictions.jsonl" else [])]
    return [*(own if given != "-" else []), Path(run)]
