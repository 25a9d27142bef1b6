"""`wbctool info`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wbctool.commands.options import Json, SelectionOptions, new_app, with_options

if TYPE_CHECKING:
    from wbctool.records.selection import Selection, Tally

app = new_app()


@app.command(
    epilog="Example:  wbctool info runs/a\n\nIn a script:  wbctool info masks/ --json | jq .classes\n\n"
    "For other programs:  wbctool info runs/a --onnx a.onnx"
)
@with_options
def info(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A run folder, record file, folder of images, or -.")],
    selection: SelectionOptions,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the run as ONNX: images in, probabilities out.")
    ] = None,
    json: Json = False,
) -> None:
    """Say what a run folder, record file or image folder is and holds."""
    from json import dumps

    from wbctool.console import note, records_wanted, table
    from wbctool.records.selection import Tally

    if onnx:
        _write_onnx(Path(path), onnx)
    tally = Tally()
    if (Path(path) / "model.json").exists():
        facts = _of_run(Path(path))
    else:
        facts = _of_records(path, selection.selection(), tally)
    if records_wanted(json):
        print(dumps(facts, ensure_ascii=False))
        return
    for line in tally.notes():
        note(line)
    if isinstance(facts.get("training"), dict):
        facts["training, unlike best"] = _chosen(facts.pop("training"))
    rows = [(key, _shown(value)) for key, value in facts.items() if value not in ({}, None)]
    table(path, ("what", "is"), rows, numbers=False)


def _chosen(training: dict[str, Any]) -> dict[str, Any]:
    """What was chosen otherwise than the recipe `best` does; all of it is in `--json`."""
    from wbctool.training.recipe_files import read_recipe

    best = read_recipe("best").model_dump(mode="json")
    return {key: value for key, value in training.items() if key not in best or value not in (best[key], None, "", [])}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        inner = ((key, _shown(part).replace("\n", ", ")) for key, part in value.items() if part is not None)
        return "\n".join(f"{key}: {text}" for key, text in inner)
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _write_onnx(run: Path, file: Path) -> None:
    from wbctool.console import note
    from wbctool.errors import UsageProblem
    from wbctool.inputs.run_folders import is_run

    if file.is_dir():
        raise UsageProblem(f"--onnx {file}: is a folder; give a file")
    if not is_run(run):
        raise UsageProblem(f"{run}: is no run folder; --onnx is for those")

    import torch

    from wbctool.inference.onnx_file import write_onnx
    from wbctool.modeling.run_folder import load

    worst = write_onnx(load(run, torch.device("cpu")), file)
    note(f"{file}: probabilities within {worst:.1g} of the run's own in float32")


def _of_run(path: Path) -> dict[str, Any]:
    from wbctool.inputs.run_folders import read_info

    model = read_info(path)
    keys = (
        *("ensemble", "fused", "parts", "names", "backbone", "backbone_args", "attention", "attention_at", "size"),
        *("parameters", "best_epoch", "preparation", "calibration", "training"),
    )
    return {
        "kind": "run folder",
        "classes": model["classes"],
        **{key: model[key] for key in keys if key in model},
    }


def _of_records(path: str, selection: Selection, tally: Tally) -> dict[str, Any]:
    from collections import Counter

    from wbctool.errors import InputError
    from wbctool.inputs.folders import read_inputs
    from wbctool.records import ERROR, SPLITS, group_of

    schemas: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    cells: Counter[str] = Counter()
    groups = set()
    for record in read_inputs([path], selection, tally):
        schemas[record["schema"]] += 1
        if record["schema"] == ERROR:
            continue
        labels[record.get("label") or "(no label)"] += 1
        splits[record.get("split") or "(none)"] += 1
        cells.update(cell["kind"] for cell in record.get("cells", ()))
        groups.add(group_of(record))
    if not schemas:
        raise InputError(f"{path}: holds no images or records")
    return {
        "kind": "records" if set(schemas) != {"wbctool.image/1"} else "images",
        "records": dict(schemas),
        "classes": dict(sorted(labels.items())),
        "splits": {name: splits[name] for name in (*SPLITS, "(none)") if splits[name]}
        if any(map(splits.get, SPLITS))
        else {},
        "groups": len(groups),
        "cells": dict(cells),
    }
