"""`wbctool enhance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.options import ExecutionOptions, Inputs, Out, SelectionOptions, new_app, with_options

app = new_app()


@app.command(
    epilog="Example:  wbctool enhance smears/ -o even/ --reinhard reference.jpg --clahe\n\n"
    "The order is always: non-local means, Reinhard, CLAHE. OUT/profile.json can be given to --reinhard again."
)
@with_options
def enhance(
    inputs: Inputs,
    out: Out,
    selection: SelectionOptions,
    execution: ExecutionOptions,
    clahe: Annotated[bool, typer.Option("--clahe", help="Even out contrast.")] = False,
    clip: Annotated[
        float | None, typer.Option(metavar="X", min=0.1, max=100, help="CLAHE: contrast limit. (2)")
    ] = None,
    tiles: Annotated[int | None, typer.Option(metavar="N", min=1, max=64, help="CLAHE: tiles a side. (8)")] = None,
    reinhard: Annotated[
        Path | None, typer.Option(metavar="REF", help="Bring the stain to a reference image or a profile.json.")
    ] = None,
    denoise: Annotated[str | None, typer.Option(metavar="nlm", help="Non-local means.")] = None,
    strength: Annotated[
        float | None, typer.Option(metavar="X", min=0.1, max=100, help="Non-local means: strength. (5)")
    ] = None,
) -> None:
    """Even out contrast, stain and noise of images: CLAHE, Reinhard, non-local means."""
    from wbctool.console import records_wanted, table
    from wbctool.enhancing.step import EnhanceOptions, enhance_step
    from wbctool.errors import UsageProblem
    from wbctool.imaging.enhancement import StainProfile
    from wbctool.pipeline.runner import run_step
    from wbctool.records.storage import write_json

    if not clahe and (clip is not None or tiles is not None):
        raise UsageProblem("--clip and --tiles go with --clahe")
    if denoise is None and strength is not None:
        raise UsageProblem("--strength goes with --denoise nlm")
    profile = StainProfile.read(reinhard) if reinhard else None
    options = EnhanceOptions(denoise, strength or 5.0, profile, clahe, clip or 2.0, tiles or 8)
    outcome = run_step(enhance_step(options), inputs, out, selection.selection(), execution.execution())
    if profile:
        write_json(out / "profile.json", profile.as_json())
    if not records_wanted(execution.json):
        rows = [
            (step, ", ".join(f"{name} {value}" for name, value in constants.items()))
            for step, constants in options.as_record().items()
        ]
        table(f"{out}: {outcome.records:,} images", ("done to each", "how"), rows)
    raise typer.Exit(outcome.exit_code)
