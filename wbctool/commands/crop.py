"""`wbctool crop`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.options import ExecutionOptions, Inputs, Out, SelectionOptions, new_app, with_options

if TYPE_CHECKING:
    from wbctool.records import Record

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
    method: Annotated[
        str, typer.Option(metavar="roi|box", help="Square about the cell, or its bounding box stretched.")
    ] = "roi",
    margin: Annotated[
        float | None, typer.Option(min=0, max=10, metavar="X", help="Added about the cell, a share. (roi 0.3, box 0)")
    ] = None,
    size: Annotated[int, typer.Option(min=8, max=4096, metavar="PX", help="Side of the crops, pixels.")] = 224,
    kind: Annotated[str | None, typer.Option(metavar="wbc|platelet|rbc|any", help="What to crop.")] = None,
    which: Annotated[str, typer.Option(metavar="central|largest|all", help="Which of an image's cells.")] = "central",
    edge: Annotated[str, typer.Option(metavar="keep|drop", help="Cells cut by the image's edge.")] = "keep",
    denoise: Annotated[str | None, typer.Option(metavar="nlm", help="Denoise crops by non-local means.")] = None,
) -> None:
    """Cut one image, and its mask, per cell."""
    from wbctool.console import note, records_wanted, table
    from wbctool.cropping.step import CropOptions, crop_step
    from wbctool.pipeline.runner import run_step

    kinds: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    empty = 0

    def count(record: Record) -> None:
        nonlocal empty
        if "value" in record:
            kinds[record["kind"]] += 1
            labels[record.get("label") or "(no label)"] += 1
        else:
            empty += "cells" in record

    step = crop_step(CropOptions(method, margin, size, kind, which, edge, denoise))
    outcome = run_step(step, inputs, out, selection.selection(), execution.execution(), count)
    if empty and not execution.quiet:
        note(f"{empty:,} images have no such cell; each has a record with empty cells")
    if not records_wanted(execution.json):
        shown = ", ".join(f"{n:,} {name}" for name, n in kinds.most_common())
        table(f"{out}: {shown or 'no cells'}", ("class", "cells"), sorted(labels.items()))
    raise typer.Exit(outcome.exit_code)
