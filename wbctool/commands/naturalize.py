"""`wbctool naturalize`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.options import ExecutionOptions, Inputs, Out, Seed, SelectionOptions, new_app, with_options

app = new_app()


@dataclass(frozen=True)
class FieldSelectionOptions(SelectionOptions):
    """Every class provides fields and red cells, whichever composites are made of."""

    classes: Annotated[str | None, typer.Option(metavar="A,B", help="Make composites of these classes only.")] = None


@app.command(
    epilog="Example:  wbctool naturalize split.jsonl -o grown/ --balance-to 200\n\n"
    "Only images of the training split are used. OUT/pool holds the cut-outs: look, remove what is bad, "
    "and run again with --overwrite."
)
@with_options
def naturalize(
    inputs: Inputs,
    out: Out,
    selection: FieldSelectionOptions,
    execution: ExecutionOptions,
    add: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="So many of each class; 0: only the pool.")
    ] = None,
    balance_to: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="What each class lacks from N training images.")
    ] = None,
    set_name: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="As the paper's sets: 419-pmy, 1k, 2k, 1k-class.")
    ] = None,
    algorithm: Annotated[
        str, typer.Option(metavar="natural|paper", help="Real fields with another cell; or Algorithm 1 as published.")
    ] = "natural",
    rbc: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Red cells. (as the real field has; paper 8)")
    ] = None,
    pool: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the cut-outs are kept. (OUT/pool)")] = None,
    seed: Seed = 0,
) -> None:
    """Make composites of real cut-outs, with exact masks, for training only."""
    from wbctool.console import records_wanted, table
    from wbctool.errors import counted
    from wbctool.naturalizing import CompositeOptions, make_composites

    classes = tuple(name.strip() for name in (selection.classes or "").split(",") if name.strip())
    options = CompositeOptions(add, balance_to, set_name, classes, algorithm, rbc, seed)
    fields = replace(selection, classes=None).selection()
    result = make_composites(inputs, out, options, pool, fields, execution.execution())
    if not records_wanted(execution.json):
        rows = [(one.label, f"{one.real:,}", f"{one.cells:,}", f"{one.new:,}", one.uses) for one in result.classes]
        title = f"{out}: composites of {counted(result.fields, 'field')}"
        table(title, ("class", "real", "cells", "new", "each used"), rows)
    raise typer.Exit(result.outcome.exit_code)
