"""`wbctool evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

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


@dataclass(frozen=True)
class ReportOptions:
    """What is shown of predictions."""

    baseline: Annotated[
        str | None, typer.Option(metavar="RUN", help="Of several runs, the one that the others are tested against.")
    ] = None
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Less confident predictions are counted as uncertain.")
    ] = None
    target_error: Annotated[
        float | None, typer.Option(min=0, max=1, help="Find the threshold that leaves this error, on validation.")
    ] = None
    form: Annotated[str, typer.Option("--format", metavar="table|markdown|latex|csv", help="Of the figures.")] = "table"

    def check(self) -> None:
        """Refuse what does not go together."""
        from wbctool.errors import UsageProblem
        from wbctool.evaluation.tables import FORMATS

        if self.form not in FORMATS:
            raise UsageProblem(f"--format {self.form}: choose from {', '.join(FORMATS)}")
        if self.threshold is not None and self.target_error is not None:
            raise UsageProblem("--threshold and --target-error: give one of them")


@app.command(
    epilog="Example:  wbctool evaluate runs/a\n\n"
    "In a script:  wbctool predict runs/a cells/ | wbctool evaluate - --json | jq .macro_f1\n\n"
    "Masks:  wbctool evaluate masks/ --truth experts/ --which central"
)
@with_options
def evaluate(
    inputs: Inputs,
    shown: ReportOptions,
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
    from wbctool.errors import UsageProblem

    if truth:
        if shown != ReportOptions():
            raise UsageProblem("--truth measures masks; the options of predictions do not go with it")
        _agreement(inputs, truth, which, truth_values, selection, split, quiet, json)
        return
    if truth_values or which != "all":
        raise UsageProblem("--which and --truth-values go with --truth DIR")
    shown.check()
    _predictions(inputs, selection, split, shown, quiet, json)


def _predictions(
    inputs: list[str],
    selection: SelectionOptions,
    split: str | None,
    shown: ReportOptions,
    quiet: bool,
    json: bool,
) -> None:
    from json import dumps

    from wbctool.console import note, stdout_console
    from wbctool.errors import UsageProblem
    from wbctool.evaluation.comparison import candidates
    from wbctool.evaluation.predictions import collect
    from wbctool.evaluation.report import figure_table, print_report, to_json
    from wbctool.evaluation.side_by_side import compared, print_side_by_side, table_of
    from wbctool.evaluation.tables import written
    from wbctool.folders import Tally, read_inputs

    if split not in (None, "train", "val", "test", "all"):
        raise UsageProblem(f"--split {split}: choose from train, val, test, all")
    runs = []
    for given in inputs:
        tally = Tally()
        file = Path(given) / "predictions.jsonl"
        source = str(file) if given != "-" and file.exists() else given
        found = collect(read_inputs([source], selection.selection(), tally), split, given, tally)
        tally.refuse_damage()
        runs += [(given if len(found) == 1 else run.run, run) for run in found]
    if not quiet and split is None and any(run.split == "test" for _, run in runs):
        note("the records carry splits: test is evaluated (--split all for all)")
    if len(runs) == 1:
        if shown.baseline:
            raise UsageProblem("--baseline: give the runs that are compared with it, too")
        ((source, run),) = runs
        report = to_json(run, shown.threshold, shown.target_error)
        if json:
            print(dumps(report, allow_nan=False))
        elif shown.form != "table":
            print(written(figure_table(report), shown.form), end="")
        else:
            print_report(report, "stdin" if source == "-" else source, stdout_console())
        return
    joined = candidates(runs)
    names = [one.name for one in joined]
    reference = _named(joined, shown.baseline, names)
    rows = compared(joined, reference)
    if json:
        of = {id(member): row for one, row in reversed(list(zip(joined, rows, strict=True))) for member in one.members}
        for _, run in runs:
            report = to_json(run, shown.threshold, shown.target_error)
            print(dumps({**report, "comparison": of[id(run)]}, allow_nan=False))
    elif shown.form != "table":
        print(written(table_of(rows, shown.form), shown.form), end="")
    else:
        if shown.threshold is not None or shown.target_error is not None:
            raise UsageProblem("--threshold and --target-error are for one run at a time, or for --json")
        print_side_by_side(rows, runs[0][1].split, stdout_console())


def _named(candidates: list[Any], baseline: str | None, names: list[str]) -> Any | None:
    from wbctool.errors import UsageProblem

    if baseline is None:
        return None
    for one in candidates:
        if one.name.rstrip("/") == baseline.rstrip("/"):
            return one
    raise UsageProblem(f"--baseline {baseline}: is none of the runs: {', '.join(names)}")


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
