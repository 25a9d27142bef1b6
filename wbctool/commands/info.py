"""`wbctool info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wbctool.commands.generated import with_options
from wbctool.commands.options import Json, SelectionOptions, new_app

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
    from wbctool.inputs.description import describe
    from wbctool.records.tally import Tally

    if onnx:
        _write_onnx(Path(path), onnx)
    tally = Tally()
    facts = describe(path, selection.selection(), tally)
    if records_wanted(json):
        print(dumps(facts, ensure_ascii=False))
        return
    for line in tally.notes():
        note(line)
    if isinstance(facts.get("training"), dict):
        facts["training, unlike best"] = _unlike_best(facts.pop("training"))
    rows = [(key, _as_text(value)) for key, value in facts.items() if value not in ({}, None)]
    table(path, ("what", "is"), rows, numbers=False)


def _unlike_best(training: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe keys whose values differ from those of the recipe `best`."""
    from wbctool.training.recipe_files import read_recipe

    best = read_recipe("best").model_dump(mode="json")
    return {key: value for key, value in training.items() if key not in best or value not in (best[key], None, "", [])}


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        lines = ((key, _as_text(inner).replace("\n", ", ")) for key, inner in value.items() if inner is not None)
        return "\n".join(f"{key}: {text}" for key, text in lines)
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _write_onnx(run: Path, file: Path) -> None:
    from wbctool.console import note
    from wbctool.errors import UsageProblem

    if file.is_dir():
        raise UsageProblem(f"--onnx {file}: is a folder; give a file")
    if not (run / "model.json").is_file() or not (run / "weights.safetensors").is_file():
        raise UsageProblem(f"{run}: is no run folder; --onnx is for those")
    if file.exists() and file.suffix != ".onnx":
        raise UsageProblem(f"--onnx {file}: exists and is not an .onnx file; give another, so that nothing is lost")

    import torch

    from wbctool.inference.onnx_file import write_onnx
    from wbctool.modeling.run_folder import load

    worst = write_onnx(load(run, torch.device("cpu")), file)
    note(f"{file}: probabilities within {worst:.1g} of the run's own in float32")
