"""`wbctool segment`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from wbctool.commands.options import (
    ExecutionOptions,
    Inputs,
    Out,
    SelectionOptions,
    new_app,
    with_options,
)

app = new_app()


@app.command(
    epilog="Example:  wbctool segment smears/ -o masks/\n\n"
    "Each image gives one label image (PNG) and one record with its cells."
)
@with_options
def segment(
    inputs: Inputs,
    out: Out,
    selection: SelectionOptions,
    execution: ExecutionOptions,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="stain (default): whole cells; cyan-otsu: nuclei as published.")
    ] = "stain",
) -> None:
    """Find white cells with their nuclei, red cells and platelets in smear images."""
    from wbctool.console import records_wanted, table
    from wbctool.segmentation.step import segment_step
    from wbctool.steps import run_step

    images: Counter[str] = Counter()
    found: Counter[str] = Counter()

    def count(record: dict) -> None:
        kinds = Counter(cell["kind"] for cell in record.get("cells", ()))
        found.update(kinds)
        images.update(kinds.keys())
        images["none"] += "cells" in record and not kinds["wbc"]

    outcome = run_step(segment_step(method), inputs, out, selection.selection(), execution.execution(), count)
    if not records_wanted(execution.json):
        names = {"wbc": "white cells", "platelet": "platelets", "rbc": "red cells"}
        rows = [(name, f"{found[kind]:,}", f"{images[kind]:,}") for kind, name in names.items()]
        rows.append(("no white cell", "", f"{images['none']:,}"))
        table(f"{out}: masks of {outcome.records:,} images", ("found", "objects", "in images"), rows)
    raise typer.Exit(outcome.exit_code)
