"""`wbctool evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.generated import with_options
from wbctool.commands.options import AllowSynthetic, Inputs, Json, Quiet, SelectionOptions, new_app
from wbctool.errors import UsageProblem, check_choice
from wbctool.statistics.metrics import METRICS

if TYPE_CHECKING:
    from wbctool.evaluation.document import Result
    from wbctool.evaluation.run_evaluation import Evaluation

app = new_app()
_EVALUATED = ("baseline", "threshold", "target_error", "audit", "trained_on", "by", "allow_synthetic")


@dataclass(frozen=True)
class ReportOptions:
    """What to show of predictions."""

    baseline: Annotated[
        str | None, typer.Option(metavar="RUN", help="Of several runs, the one that the others are tested against.")
    ] = None
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help=f"Metrics to show, out of: {', '.join(METRICS.names())}."),
    ] = None
    threshold: Annotated[
        float | None, typer.Option(metavar="P", min=0, max=1, help="Less confident ones are uncertain.")
    ] = None
    target_error: Annotated[
        float | None,
        typer.Option(metavar="E", min=0, max=1, help="Threshold for error E, by validation."),
    ] = None
    by: Annotated[str | None, typer.Option(metavar="KEY", help="Also by a record key, such as site.")] = None
    audit: Annotated[
        bool, typer.Option("--audit", help="Look for what tested images share with those of training.")
    ] = False
    trained_on: Annotated[
        str | None, typer.Option(metavar="IN", help="For --audit: records of training. (those of the run folder)")
    ] = None
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page that stands alone, pictures inside.")
    ] = None
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Also plots, as PNG and SVG.")] = None
    explanations: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For --html: what `explain` made of the images.")
    ] = None
    differential: Annotated[
        bool, typer.Option("--differential", help="Count classes by group (slide, patient); compare with the truth.")
    ] = False
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="table, markdown, latex or csv.")] = "table"
    allow_synthetic: AllowSynthetic = False

    def used(self) -> list[str]:
        """The names of the options that were given."""
        names = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return ["format" if name == "form" else name.replace("_", "-") for name in names]

    def check(self) -> None:
        """Refuse files that cannot be written, and options that do not go together."""
        from wbctool.evaluation.document import FORMATS

        used = self.used()
        check_choice("--format", self.form, FORMATS)
        if self.html and self.html.is_dir():
            raise UsageProblem(f"--html {self.html}: is a folder; give a file")
        if self.html and self.html.suffix.lower() not in (".html", ".htm"):  # so that no record file is replaced
            raise UsageProblem(f"--html {self.html}: does not end in .html; give a name such as report.html")
        if self.plots and self.plots.exists() and not self.plots.is_dir():
            raise UsageProblem(f"--plots {self.plots}: is a file; give a folder")
        if self.differential and not set(used) <= {"differential", "threshold", "format", "allow-synthetic"}:
            raise UsageProblem("--differential goes with --threshold and --format only")
        if self.form != "table" and not self.differential and {"audit", "by", "threshold", "target-error"} & set(used):
            raise UsageProblem(
                "--format writes the metrics only; --audit, --by and --threshold go with --json or --html"
            )
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
        Path | None,
        typer.Option(metavar="DIR|FILE", help="Truth of masks: masks or boxes."),
    ] = None,
    which: Annotated[str, typer.Option(metavar="all|central", help="With --truth: which white cells.")] = "all",
    truth_values: Annotated[
        str | None,
        typer.Option(
            metavar="PART=GREY,...", help="Grey values of nucleus, cell, rbc, platelet. (nucleus=255,cell=128)"
        ),
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(metavar="CLASS=KIND,...", help="Kinds of classes: 0=wbc,x=ignore.")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show metrics of predictions (run folders, prediction records or -), or of masks against --truth."""
    from wbctool.evaluation import count_cells, evaluate_masks

    if truth:
        if split is not None:
            raise UsageProblem("--split is for predictions, not for --truth")
        if used := shown.used():
            raise UsageProblem(f"--truth measures masks; --{used[0]} is for predictions")
        from wbctool.evaluation.agreement import parse_grey_values
        from wbctool.inputs.boxes import parse_kinds

        values = parse_grey_values(truth_values)
        _print(evaluate_masks(inputs, truth, which, values, selection.selection(), quiet, parse_kinds(kinds)), json)
        return
    if truth_values or kinds or which != "all":
        raise UsageProblem("--which, --truth-values and --kinds go with --truth")
    shown.check()
    result: Result | Evaluation
    if shown.differential:
        result = count_cells(inputs, selection.selection(), split, shown.threshold, quiet)
    else:
        result = _evaluated(inputs, shown, selection, split, quiet, json)
    if json or shown.form == "table" or not result.table:
        _print(result, json)
    else:
        from wbctool.evaluation.document import written

        print(written(result.table(shown.form), shown.form), end="")


def _evaluated(
    inputs: list[str], shown: ReportOptions, selection: SelectionOptions, split: str | None, quiet: bool, json: bool
) -> Evaluation:
    """Evaluate predictions, and write the files that are wanted beside the report."""
    from wbctool.console import note
    from wbctool.evaluation import EvaluationOptions, evaluate_predictions
    from wbctool.evaluation.sources import explanation_panels

    options = EvaluationOptions(
        split=split,
        columns=tuple(name.strip() for name in shown.columns.split(",")) if shown.columns else (),
        **{name: getattr(shown, name) for name in _EVALUATED},
    )
    evaluation = evaluate_predictions(inputs, options, selection.selection(), quiet)
    of_one_run = {"audit", "by", "threshold", "target-error"} & set(shown.used())
    if evaluation.comparison and of_one_run and not (json or shown.html):
        raise UsageProblem("--audit, --by, --threshold and --target-error: of several runs, only with --json or --html")
    if shown.plots:
        evaluation.write_plots(shown.plots)
    if shown.html:
        evaluation.write_page(shown.html, explanation_panels(shown.explanations) if shown.explanations else {})
        if not quiet:
            note(f"the page is {shown.html}")
    return evaluation


def _print(result: Result | Evaluation, json: bool) -> None:
    """Print reports as JSON lines, or laid out for the terminal."""
    from json import dumps

    from wbctool.console import stdout_console

    if json:
        for report in result.reports:
            print(dumps(report, allow_nan=False))
    else:
        from wbctool.evaluation.terminal import print_document

        print_document(result.document, stdout_console())
