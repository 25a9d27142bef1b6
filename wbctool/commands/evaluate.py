"""`wbctool evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.options import (
    Inputs,
    Json,
    Quiet,
    SelectionOptions,
    new_app,
    with_options,
)

app = new_app()


@app.command(
    epilog="Example:  wbctool evaluate runs/a\n\n"
    "In a script:  wbctool predict runs/a cells/ | wbctool evaluate - --json | jq .macro_f1"
)
@with_options
def evaluate(
    inputs: Inputs,
    selection: SelectionOptions,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME|all", help="train, val, test or all. [test where records carry splits]"),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show figures for predictions: run folders, prediction records or -."""
    from json import dumps

    from wbctool.console import note, stdout_console, table
    from wbctool.errors import UsageProblem
    from wbctool.evaluation.predictions import collect
    from wbctool.evaluation.report import print_report, to_json
    from wbctool.folders import Tally, read_inputs

    if split not in (None, "train", "val", "test", "all"):
        raise UsageProblem(f"--split {split}: choose from train, val, test, all")
    reports = []
    for given in inputs:
        tally = Tally()
        file = Path(given) / "predictions.jsonl"
        source = str(file) if given != "-" and file.exists() else given
        records = list(read_inputs([source], selection.selection(), tally))
        tally.refuse_damage()
        reports.append((given, to_json(collect(records, split, given))))
    if not quiet and split is None and any(report["split"] == "test" for _, report in reports):
        note("the records carry splits: test is evaluated (--split all for all)")
    if json:
        for _, report in reports:
            print(dumps(report, allow_nan=False))
        return
    if len(reports) == 1:
        ((source, report),) = reports
        print_report(report, "stdin" if source == "-" else source, stdout_console())
        return
    keys = ("n", "accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_auc", "mcc")
    names = ("images", "acc.", "prec.", "recall", "F1", "AUC", "MCC")
    rows = [
        (source, *(f"{r[key]:,}" if key == "n" else "–" if r[key] is None else f"{r[key]:.4f}" for key in keys))
        for source, r in reports
    ]
    table("Runs (macro averages)", ("run", *names), rows)
