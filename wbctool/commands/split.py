"""`wbctool split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.generated import Only, with_options
from wbctool.commands.options import CommandExecution, Inputs, SelectionOptions, new_app
from wbctool.splitting.options import SplitOptions

app = new_app()


@app.command(
    epilog="Example:  wbctool split masks/ --ratio 70/15/15 > split.jsonl\n\n"
    "Cross-validation: for i in 1 2 3 4 5; do wbctool split cells/ --folds 5 --fold $i > fold-$i.jsonl; done"
)
@with_options
def split(
    *,
    inputs: Inputs,
    options: SplitOptions,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also into a file.")] = None,
    selection: SelectionOptions,
    execution: Annotated[CommandExecution, Only(("skip_bad", "quiet", "json_"))],
) -> None:
    """Add train, val and test to records: stratified by class, groups kept whole."""
    from wbctool.console import emit_all, note, records_wanted, table
    from wbctool.errors import DONE, SOME_FAILED, counted
    from wbctool.splitting import split_records

    result = split_records(inputs, options, selection.selection(), out, execution.quiet)
    if records_wanted(execution.json_):
        emit_all(result.records)
    else:
        rows = [(label, *counts.values()) for label, counts in result.images.items()]
        rows.append(("groups", *result.groups.values()))
        table(counted(result.count, "record"), ("class", *result.groups), rows)
        note(f"the records are in {out}" if out else "to keep the records, add `-o split.jsonl` or `> split.jsonl`")
    raise typer.Exit(SOME_FAILED if result.failed and not execution.skip_bad else DONE)
