"""Reading what a run folder contains, without the libraries that its model needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wbctool.errors import InputError
from wbctool.records.storage import read_json

SCHEMA = "wbctool.model/1"
NEXT = "train it again, or give another run folder"


def hint_of_runs(path: Path) -> str:
    """Return advice for a folder whose subfolders are runs, as `--folds` makes them; else an empty text."""
    runs = sorted(model.parent for model in path.glob("*/model.json"))
    return f"{path} holds run folders: give them, such as {runs[0]}" if runs else ""


def refuse_unfinished(folder: Path) -> None:
    """Refuse a run folder whose command, which the `InputError` names, has not finished."""
    file = folder / "run.json"
    if file.is_file() and not (folder / "model.json").exists():
        run = read_json(file, "give another folder")
        if run.get("command") in ("train", "xgboost-fuse") and not run.get("finished"):
            command = run["command"]
            raise InputError(f"{folder}: `wbctool {command}` has not finished it; run the same command again to go on")


def read_info(path: Path) -> dict[str, Any]:
    """Read the `model.json` of a run folder; an `InputError` says why it is no finished one."""
    if not path.is_dir():
        raise InputError(f"{path}: no such run folder; `wbctool train … -o {path}` makes one")
    if not (path / "model.json").exists() and (path / "resume").exists():
        raise InputError(f"{path}: its training has not finished; run the same `wbctool train` again to go on")
    info = read_json(path / "model.json", hint_of_runs(path) or f"{path} is no run folder; {NEXT}")
    if info.get("schema") != SCHEMA:
        raise InputError(f"{path}/model.json: schema {info.get('schema')!r}, not {SCHEMA}; {NEXT}")
    for key in ("training", "preparation", "calibration", "checksums"):
        if not isinstance(info.get(key, {}), dict):
            raise InputError(f"{path}/model.json: damaged ({key} is no object); {NEXT}")
    classes = info.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"{path}/model.json: damaged (no classes); {NEXT}")
    return info
