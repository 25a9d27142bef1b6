"""`wbctool enhance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.generated import with_options
from wbctool.commands.options import CommandExecution, Inputs, Out, SelectionOptions, new_app
from wbctool.enhancing import EnhanceParameters

app = new_app()


@app.command(
    epilog="Example:  wbctool enhance smears/ -o even/ --reinhard reference.jpg --clahe\n\n"
    "The order is always: non-local means, Reinhard, CLAHE. OUT/profile.json can be given to --reinhard again."
)
@with_options
def enhance(
    inputs: Inputs,
    out: Out,
    parameters: EnhanceParameters,
    selection: SelectionOptions,
    execution: CommandExecution,
    reinhard: Annotated[
        Path | None, typer.Option(metavar="REF", help="Bring the stain to a reference image or a profile.json.")
    ] = None,
) -> None:
    """Even out contrast, stain and noise of images: CLAHE, Reinhard, non-local means."""
    from wbctool.console import records_wanted, table
    from wbctool.enhancing import enhance_images

    result = enhance_images(inputs, out, parameters, reinhard, selection=selection.selection(), execution=execution)
    if not records_wanted(execution.json_):
        rows = [
            (step, ", ".join(f"{name} {value}" for name, value in constants.items()))
            for step, constants in result.steps.items()
        ]
        table(f"{out}: {result.outcome.records:,} images", ("step", "constants"), rows)
    raise typer.Exit(result.outcome.exit_code)
