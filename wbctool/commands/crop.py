"""`wbctool crop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from wbctool.commands.generated import GivenOptions, options_of
from wbctool.commands.options import ExecutionOptions, Inputs, Out, SelectionOptions, new_app, with_options
from wbctool.cropping import CropParameters

if TYPE_CHECKING:
    CropOptions = GivenOptions
else:
    CropOptions = options_of("CropOptions", {"crop": CropParameters})

app = new_app()


@app.command(
    epilog="Example:  wbctool segment smears/ -o masks/ | wbctool crop - -o cells/\n\n"
    "By default the white cell nearest the centre, else the platelet nearest it."
)
@with_options
def crop(
    inputs: Inputs,
    out: Out,
    selection: SelectionOptions,
    execution: ExecutionOptions,
    options: CropOptions,
) -> None:
    """Cut one image, and its mask, per cell."""
    from wbctool.console import note, records_wanted, table
    from wbctool.cropping import crop_cells

    result = crop_cells(inputs, out, options.given(), selection=selection.selection(), execution=execution.execution())
    if result.empty and not execution.quiet:
        note(f"{result.empty:,} images have no such cell; each has a record with empty cells")
    if not records_wanted(execution.json):
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in result.kinds.most_common())
        table(f"{out}: {kinds or 'no cells'}", ("class", "cells"), sorted(result.labels.items()))
    raise typer.Exit(result.outcome.exit_code)
