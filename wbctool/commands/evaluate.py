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
    "In a script:  wbctool predict runs/a cells/ | wbctool evaluate - --json | jq .macro_f1\n\n"
    "Masks:  wbctool evaluate masks/ --truth experts/ --which central"
)
@with_options
def evaluate(
    inputs: Inputs,
    selection: SelectionOptions,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME|all", help="train, val, test or all. (test where records carry splits)"),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Measure masks against truth masks of the same path and stem.")
    ] = None,
    which: Annotated[str, typer.Option(metavar="all|central", help="With --truth: which white cells.")] = "all",
    truth_values: Annotated[
        str | None,
        typer.Option(
            metavar="PART=GREY,...", help="Grey values of nucleus, cell, rbc, platelet. (nucleus=255,cell=128)"
        ),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show figures for predictions (run folders, prediction records or -), or for masks against --truth."""
    from json import dumps

    from wbctool.console import note, stdout_console, table
    from wbctool.errors import UsageProblem
    from wbctool.evaluation.predictions import collect
    from wbctool.evaluation.report import print_report, to_json
    from wbctool.folders import Tally, read_inputs

    if truth:
        _agreement(inputs, truth, which, truth_values, selection, split, quiet, json)
        return
    if truth_values or which != "all":
        raise UsageProblem("--which and --truth-values go with --truth DIR")
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


def _agreement(
    inputs: list[str],
    truth: Path,
    which: str,
    truth_values: str | None,
    selection: SelectionOptions,
    split: str | None,
    quiet: bool,
    json: bool,
) -> None:
    from json import dumps

    from wbctool.console import note
    from wbctool.errors import InputError, UsageProblem
    from wbctool.evaluation.agreement import find_truth, measure, parse_values
    from wbctool.evaluation.report import print_agreement
    from wbctool.folders import Tally, read_inputs

    if split is not None:
        raise UsageProblem("--split is for predictions, not for --truth")
    values = parse_values(truth_values)
    masks = find_truth(truth)
    reports = []
    for given in inputs:
        tally = Tally()
        try:
            result = measure(read_inputs([given], selection.selection(), tally), masks, values, which, given)
        finally:
            tally.refuse_damage()
        if result.lacking:
            message = f"{truth}: no truth mask has {', '.join(result.lacking)}"
            if truth_values is None:
                raise InputError(f"{message}; name the grey values that it has with --truth-values")
            note(message)
        report = {"source": given, **result.as_json(values)}
        reports.append(report)
        if not quiet:
            for count, what in (
                (len(result.unpaired), "images have no truth and were left out"),
                (result.unused, "truth masks have no image"),
                (len(result.failed), "images have no mask and score 0"),
            ):
                if count:
                    note(f"{given}: {count:,} {what}")
    if json:
        for report in reports:
            print(dumps(report, allow_nan=False))
    else:
        print_agreement(reports, list(values))
