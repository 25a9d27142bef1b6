"""`wbctool split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.options import (
    AllowSynthetic,
    Inputs,
    Json,
    Quiet,
    Seed,
    SelectionOptions,
    SkipBad,
    new_app,
    with_options,
)

app = new_app()


@app.command(
    epilog="Example:  wbctool split masks/ --ratio 70/15/15 > split.jsonl\n\n"
    "Cross-validation: for i in 1 2 3 4 5; do wbctool split cells/ --folds 5 --fold $i > fold-$i.jsonl; done"
)
@with_options
def split(
    inputs: Inputs,
    selection: SelectionOptions,
    ratio: Annotated[
        str | None,
        typer.Option(metavar="TRAIN/VAL/TEST", help="Fractions; two numbers are train/test. (70/15/15)"),
    ] = None,
    folds: Annotated[int | None, typer.Option(metavar="K", help="K folds in place of --ratio.")] = None,
    fold: Annotated[int | None, typer.Option(metavar="I", help="With --folds: the fold that tests. (1)")] = None,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Compare the images, and keep copies of one in one split.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also into a file.")] = None,
    allow_synthetic: AllowSynthetic = False,
    seed: Seed = 0,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Add train, val and test to records: stratified by class, no group parted."""
    from wbctool.console import emit_all, note, records_wanted, table
    from wbctool.errors import DONE, SOME_FAILED, counted
    from wbctool.splitting import SplitOptions, split_records

    options = SplitOptions(ratio, folds, fold, near_duplicates, allow_synthetic, seed)
    result = split_records(inputs, options, selection.selection(), out, quiet)
    if records_wanted(json):
        emit_all(result.records)
    else:
        rows = [(label, *counts.values()) for label, counts in result.images.items()]
        rows.append(("groups", *result.groups.values()))
        table(counted(result.count, "record"), ("class", *result.groups), rows)
        note(f"the records are in {out}" if out else "to keep the records, add `-o split.jsonl` or `> split.jsonl`")
    raise typer.Exit(SOME_FAILED if result.failed and not skip_bad else DONE)
