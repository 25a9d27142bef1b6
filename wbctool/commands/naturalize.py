"""`wbctool naturalize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.generated import with_options
from wbctool.commands.options import CommandExecution, FieldSelectionOptions, Inputs, Out, new_app
from wbctool.naturalizing.options import CompositeOptions

app = new_app()


@app.command(
    epilog="Example:  wbctool naturalize split.jsonl -o grown/ --balance-to 200\n\n"
    "Only images of the training split are used. OUT/pool holds the cut-outs: look, remove what is bad, "
    "and run again with --overwrite."
)
@with_options
def naturalize(
    *,
    inputs: Inputs,
    out: Out,
    options: CompositeOptions,
    pool: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the cut-outs are kept. (OUT/pool)")] = None,
    selection: FieldSelectionOptions,
    execution: CommandExecution,
) -> None:
    """Make composites of real cut-outs, with exact masks, for training only."""
    from wbctool.console import records_wanted, table
    from wbctool.errors import counted
    from wbctool.naturalizing import make_composites

    result = make_composites(inputs, out, options, pool, selection.selection(), execution)
    if not records_wanted(execution.json_):
        rows = [(one.label, f"{one.real:,}", f"{one.cells:,}", f"{one.new:,}", one.uses) for one in result.classes]
        title = f"{out}: composites of {counted(result.fields, 'field')}"
        table(title, ("class", "real", "cells", "new", "each used"), rows)
    raise typer.Exit(result.outcome.exit_code)
