"""`wbctool crop`."""

from __future__ import annotations

import typer

from wbctool.commands.generated import with_options
from wbctool.commands.options import CommandExecution, Inputs, Out, SelectionOptions, new_app
from wbctool.cropping import CropParameters

app = new_app()


@app.command(
    epilog="Example:  wbctool segment smears/ -o masks/ | wbctool crop - -o cells/\n\n"
    "By default the white cell nearest the centre, else the platelet nearest it."
)
@with_options
def crop(
    inputs: Inputs, out: Out, parameters: CropParameters, selection: SelectionOptions, execution: CommandExecution
) -> None:
    """Cut one image, and its mask, per cell."""
    from wbctool.console import note, records_wanted, table
    from wbctool.cropping import crop_cells

    result = crop_cells(inputs, out, parameters, selection=selection.selection(), execution=execution)
    if result.empty and not execution.quiet:
        note(f"{result.empty:,} images have no such cell; each has a record with empty cells")
    if not records_wanted(execution.json_):
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in result.kinds.most_common())
        table(f"{out}: {kinds or 'no cells'}", ("class", "cells"), sorted(result.labels.items()))
    raise typer.Exit(result.outcome.exit_code)
