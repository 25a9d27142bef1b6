"""`wbctool predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.generated import Only, with_options
from wbctool.commands.options import CommandExecution, SelectionOptions, new_app
from wbctool.inference import PredictionOptions

if TYPE_CHECKING:
    from wbctool.inference import PredictionResult

app = new_app()


@dataclass(frozen=True)
class FieldOptions:
    """How cells are found in whole smear fields."""

    fields: Annotated[
        bool, typer.Option("--fields", help="IN is smear fields: enhance, segment and crop as the run's images were.")
    ] = False
    cells: Annotated[Path | None, typer.Option(metavar="DIR", help="With --fields: keep the cells, in DIR/crop.")] = (
        None
    )
    kind: Annotated[str, typer.Option(metavar="wbc|platelet|rbc|any", help="With --fields: which cells.")] = "wbc"
    edge: Annotated[str, typer.Option(metavar="keep|drop", help="With --fields: cells cut by the edge.")] = "keep"


@app.command(
    epilog="Example:  wbctool predict runs/a cells/ | wbctool evaluate -\n\n"
    "From smears:  wbctool predict runs/a smears/ --fields | wbctool evaluate - --differential\n\n"
    "Several run folders give the mean of their probabilities."
)
@with_options
def predict(
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="RUN... IN", help="Run folders, then a folder, image, .jsonl file or -."),
    ],
    field_options: FieldOptions,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also into a file; resumable.")
    ] = None,
    options: PredictionOptions,
    selection: SelectionOptions,
    execution: Annotated[CommandExecution, Only(("jobs", "overwrite", "skip_bad", "quiet", "json_"))],
) -> None:
    """Classify images, or the cells of smear fields, with one trained run or several."""
    from functools import partial

    from wbctool.commands.preparation import steps_of
    from wbctool.console import records_wanted
    from wbctool.inference import predict_images

    *runs, source = arguments
    _check(runs, source, field_options)
    result = predict_images(
        runs,
        source,
        out,
        options=options,
        selection=selection.selection(),
        execution=execution,
        field_steps=partial(steps_of, field_options.kind, field_options.edge) if field_options.fields else None,
        cells=field_options.cells,
    )
    if not records_wanted(execution.json_):
        _print(result, options.threshold, out, execution.quiet)
    raise typer.Exit(result.outcome.exit_code)


def _check(runs: list[str], source: str, field_options: FieldOptions) -> None:
    """Refuse arguments that do not go together."""
    from wbctool.errors import UsageProblem

    if source != "-" and (Path(source) / "model.json").is_file():
        raise UsageProblem(f"{source}: is a run folder; give images to predict after it")
    if not runs:
        raise UsageProblem(f"give a run folder and an input: wbctool predict RUN {source}")
    if field_options != FieldOptions() and not field_options.fields:
        raise UsageProblem("--cells, --kind and --edge go with --fields")


def _print(result: PredictionResult, threshold: float | None, out: Path | None, quiet: bool) -> None:
    """Print the classes as a table."""
    from wbctool.console import note, table

    total = max(result.outcome.records, 1)
    rows = [(label, f"{count:,}", f"{count / total:.1%}") for label, count in result.predicted.most_common()]
    if threshold is not None:
        rows.append(("uncertain", f"{result.uncertain:,}", f"{result.uncertain / total:.1%}"))
    table(f"{result.outcome.records:,} images", ("predicted", "images", "fraction"), rows)
    if not out and not quiet:
        note("the predictions themselves go to a file: add `-o predictions.jsonl` or `> predictions.jsonl`")
