"""`wbctool enhance`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.generated import GivenOptions, options_of
from wbctool.commands.options import ExecutionOptions, Inputs, Out, SelectionOptions, new_app, with_options
from wbctool.enhancing import EnhanceParameters

if TYPE_CHECKING:
    EnhanceOptions = GivenOptions
else:
    EnhanceOptions = options_of("EnhanceOptions", {"enhance": EnhanceParameters})

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
    options: EnhanceOptions,
    reinhard: Annotated[
        Path | None, typer.Option(metavar="REF", help="Bring the stain to a reference image or a profile.json.")
    ] = None,
) -> None:
    """Even out contrast, stain and noise of images: CLAHE, Reinhard, non-local means."""
    from wbctool.console import records_wanted, table
    from wbctool.enhancing import enhance_images

    result = enhance_images(
        inputs, out, options.given(), reinhard, selection=selection.selection(), execution=execution.execution()
    )
    if not records_wanted(execution.json):
        rows = [
            (step, ", ".join(f"{name} {value}" for name, value in constants.items()))
            for step, constants in result.steps.items()
        ]
        table(f"{out}: {result.outcome.records:,} images", ("step", "constants"), rows)
    raise typer.Exit(result.outcome.exit_code)
