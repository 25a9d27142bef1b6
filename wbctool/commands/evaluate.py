"""`wbctool evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wbctool.commands.options import AllowSynthetic, Inputs, Json, Quiet, SelectionOptions, new_app, with_options

if TYPE_CHECKING:
    from wbctool.evaluation.comparison import Candidate
    from wbctool.evaluation.predictions import Predictions

app = new_app()


@dataclass(frozen=True)
class ReportOptions:
    """What is shown of predictions."""

    baseline: Annotated[
        str | None, typer.Option(metavar="RUN", help="Of several runs, the one that the others are tested against.")
    ] = None
    threshold: Annotated[
        float | None, typer.Option(metavar="P", min=0, max=1, help="Predictions less confident than P are uncertain.")
    ] = None
    target_error: Annotated[
        float | None,
        typer.Option(metavar="E", min=0, max=1, help="Find the threshold that leaves error E, on validation."),
    ] = None
    audit: Annotated[
        bool, typer.Option("--audit", help="Look for what tested images share with those of training.")
    ] = False
    trained_on: Annotated[
        str | None, typer.Option(metavar="IN", help="For --audit: records of training. (those of the run folder)")
    ] = None
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page that stands alone, pictures inside.")
    ] = None
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write the plots, as PNG and SVG.")] = None
    explanations: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For --html: what `explain` made of the images."),
    ] = None
    differential: Annotated[
        bool, typer.Option("--differential", help="Count classes by group (slide, patient); compare with the truth.")
    ] = False
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="table, markdown, latex or csv.")] = "table"
    allow_synthetic: AllowSynthetic = False

    @property
    def at(self) -> float | None:
        """What was asked of thresholds."""
        return self.threshold if self.threshold is not None else self.target_error

    def check(self) -> None:
        """Refuse what does not go together."""
        from wbctool.errors import UsageProblem
        from wbctool.evaluation.tables import FORMATS

        if self.form not in FORMATS:
            raise UsageProblem(f"--format {self.form}: choose from {', '.join(FORMATS)}")
        if self.html and self.html.is_dir():
            raise UsageProblem(f"--html {self.html}: is a folder; give a file")
        if self.html and self.html.suffix.lower() not in (".html", ".htm"):  # so that no record file is replaced
            raise UsageProblem(f"--html {self.html}: does not end in .html; give a name such as report.html")
        if self.plots and self.plots.exists() and not self.plots.is_dir():
            raise UsageProblem(f"--plots {self.plots}: is a file; give a folder")
        if self.form != "table" and not self.differential and (self.audit or self.at is not None):
            raise UsageProblem("--format writes the figures only; --audit and --threshold go with --json or --html")
        if self.threshold is not None and self.target_error is not None:
            raise UsageProblem("--threshold and --target-error: give one of them")
        if self.trained_on and not self.audit:
            raise UsageProblem("--trained-on goes with --audit")
        if self.differential and (
            self.audit or self.html or self.plots or self.baseline or self.target_error is not None
        ):
            raise UsageProblem("--differential goes with --threshold and --format only")
        if self.explanations and not self.html:
            raise UsageProblem("--explanations goes with --html")


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
            given = next(own.name for own in fields(shown) if getattr(shown, own.name) != own.default)
            given = {"form": "format"}.get(given, given).replace("_", "-")
            raise UsageProblem(f"--truth measures masks; --{given} is for predictions")
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
    from collections import Counter
    from json import dumps

    from wbctool.console import note, stdout_console, warn
    from wbctool.errors import InputError, UsageProblem
    from wbctool.evaluation.comparison import candidates
    from wbctool.evaluation.predictions import collect
    from wbctool.evaluation.report import figure_table, print_report
    from wbctool.evaluation.side_by_side import compared, print_side_by_side, table_of
    from wbctool.evaluation.sources import predictions_file
    from wbctool.evaluation.tables import written
    from wbctool.inputs.folders import read_inputs
    from wbctool.inputs.run_folders import hint_of_runs
    from wbctool.records.tally import Tally

    if split not in (None, "train", "val", "test", "all"):
        raise UsageProblem(f"--split {split}: choose from train, val, test, all")
    if shown.differential:
        _differential(inputs, selection, split, shown, quiet, json)
        return
    runs = []
    inputs = [_bare(given) for given in inputs]
    if twice := [given for given, count in Counter(inputs).items() if count > 1]:
        raise UsageProblem(f"{twice[0]}: is given twice")
    for given in inputs:
        if hint := hint_of_runs(Path(given)):
            raise InputError(hint)
        tally = Tally()
        source = predictions_file(given)
        try:
            found = collect(
                read_inputs([source], selection.selection(), tally),
                split,
                given,
                tally,
                shown.audit,
                shown.allow_synthetic,
            )
        finally:
            tally.refuse_damage()
        if not quiet and tally.counts["group not matched"]:
            note(f"{given}: {tally.counts['group not matched']:,} ids --group-regex does not match")
        if not quiet:
            for line in tally.unused_options():
                warn(line)
        runs += [(given if len(found) == 1 else run.run, run) for run in found]
    if not quiet and split is None and any(run.split == "test" for _, run in runs):
        note("the records carry splits: test is evaluated (--split all for all)")
    if len(runs) == 1 and shown.baseline:
        raise UsageProblem("--baseline: give the runs that are compared with it, too")
    if len(runs) > 1 and not (json or shown.html) and (shown.audit or shown.at is not None):
        raise UsageProblem("--audit, --threshold and --target-error: of several runs, only with --json or --html")
    joined = candidates(runs) if len(runs) > 1 else []
    rows = compared(joined, _named(joined, shown.baseline and _bare(shown.baseline))) if joined else []
    reports = []
    if not rows or json or shown.html or shown.plots:
        reports = [_reported(run, given, shown, selection, quiet) for given, run in runs]
    if shown.html or shown.plots:
        _write_pictures(runs, reports, rows, shown, quiet)
    if json:
        of = {id(member): row for one, row in reversed(list(zip(joined, rows, strict=True))) for member in one.members}
        for (_, run), report in zip(runs, reports, strict=True):
            print(dumps({**report, "comparison": of[id(run)]} if rows else report, allow_nan=False))
    elif shown.form != "table":
        print(written(table_of(rows, shown.form) if rows else figure_table(reports[0]), shown.form), end="")
    elif rows:
        print_side_by_side(rows, runs[0][1].split, stdout_console())
    else:
        print_report(reports[0], "stdin" if runs[0][0] == "-" else runs[0][0], stdout_console())


def _differential(
    inputs: list[str], selection: SelectionOptions, split: str | None, shown: ReportOptions, quiet: bool, json: bool
) -> None:
    from json import dumps

    from wbctool.console import note, stdout_console
    from wbctool.evaluation.differential import count_groups, differential, differential_table, print_differential
    from wbctool.evaluation.sources import predictions_file
    from wbctool.evaluation.tables import written
    from wbctool.inputs.folders import read_inputs
    from wbctool.records.tally import Tally

    tally = Tally()
    where = ", ".join(inputs)
    records = read_inputs([predictions_file(given) for given in inputs], selection.selection(), tally)
    try:
        groups, classes, chosen = count_groups(records, split, shown.threshold, where, tally)
    finally:
        tally.refuse_damage()
    if not quiet and split is None and chosen == "test":
        note("the records carry splits: test is counted (--split all for all)")
    if not quiet and all(group.cells == 1 for group in groups.values()):
        note("each cell is a group of its own; name slides or patients with --group-regex or --labels")
    if not quiet and tally.counts["group not matched"]:
        note(f"{tally.counts['group not matched']:,} ids --group-regex does not match; each field is its own group")
    partly = sum(0 < sum(group.truth.values()) < group.cells for group in groups.values())
    if not quiet and partly:
        note(f"{partly:,} groups have cells without a label: no truth is shown for them")
    report = differential(groups, classes, chosen)
    if json:
        print(dumps(report, allow_nan=False))
    elif shown.form != "table":
        print(written(differential_table(report), shown.form), end="")
    else:
        print_differential(report, "stdin" if where == "-" else where, stdout_console())


def _write_pictures(
    runs: list[tuple[str, Predictions]],
    reports: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    shown: ReportOptions,
    quiet: bool,
) -> None:
    """The page and the plots that were asked for."""
    from wbctool.console import note
    from wbctool.evaluation.page import Section, page_of
    from wbctool.evaluation.plots import parallel_coordinates, plots_of
    from wbctool.evaluation.sources import panels, training_history
    from wbctool.records.storage import write_bytes
    from wbctool.statistics.plots import learning_curves, write_plots

    explained = panels(shown.explanations) if shown.explanations else {}
    taken: set[str] = set()
    sections = []
    for (given, run), report in zip(runs, reports, strict=True):
        history, best_epoch = training_history(run.run, given)
        title = "stdin" if given == "-" else given
        sections.append(Section(title, run, report, history, best_epoch, explained))
        if shown.plots:
            figures = plots_of(run, report)
            if history:
                figures["learning-curves"] = learning_curves(history, best_epoch)
            write_plots(figures, shown.plots / _folder_for(given, taken) if rows else shown.plots)
    if shown.plots and rows:
        write_plots({"parallel-coordinates": parallel_coordinates(rows)}, shown.plots)
    if shown.html:
        write_bytes(shown.html, page_of(sections, rows).encode())
        if not quiet:
            note(f"the page is {shown.html}")


def _bare(given: str) -> str:
    """A folder without the slash that a shell's pattern `runs/*/` leaves at its end."""
    return given.rstrip("/") or given


def _folder_for(given: str, taken: set[str]) -> str:
    """A folder's name made of an input's, other than those taken."""
    from itertools import count
    from re import sub

    name = sub(r"[^\w.-]+", "_", given).strip("._") or "run"
    found = next(each for n in count(1) if (each := name if n == 1 else f"{name}-{n}") not in taken)
    taken.add(found)
    return found


def _reported(
    run: Predictions, given: str, shown: ReportOptions, selection: SelectionOptions, quiet: bool
) -> dict[str, Any]:
    from wbctool.evaluation.report import to_json

    report = to_json(run, shown.threshold, shown.target_error)
    if shown.audit:
        from wbctool.console import Progress
        from wbctool.evaluation.audit import audit
        from wbctool.evaluation.sources import training_records

        known = training_records(run.run, run.split, given, shown.trained_on, selection.selection())
        with Progress("audit", "images", quiet, total=len(run.ids) + len(known)) as progress:
            report["audit"] = audit(run, known, on_image=progress.step)
    return report


def _named(candidates: list[Candidate], baseline: str | None) -> Candidate | None:
    from wbctool.errors import UsageProblem

    if baseline is None:
        return None
    for one in candidates:
        if one.name.rstrip("/") == baseline.rstrip("/"):
            return one
    raise UsageProblem(f"--baseline {baseline}: is none of the runs: {', '.join(one.name for one in candidates)}")


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
    from wbctool.inputs.folders import read_inputs
    from wbctool.records.tally import Tally

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
