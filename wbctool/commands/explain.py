"""`wbctool explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.generated import GivenOptions, Only, options_of, with_options
from wbctool.commands.options import CommandExecution, Device, Out, Precision, SelectionOptions, new_app
from wbctool.explaining.method import METHODS
from wbctool.explaining.options import ExplanationOutput, MapOptions

if TYPE_CHECKING:
    from wbctool.explaining import ExplanationResult

    MethodParameters = GivenOptions
else:
    MethodParameters = options_of("MethodParameters", {method.name: method.parameters for method in METHODS})

app = new_app()


@app.command(
    epilog="Example:  wbctool explain runs/a cells/ -o looks/\n\n"
    "Baseline, CBAM, their difference:  wbctool explain runs/plain cells/ --compare runs/cbam -o looks/ --sheet 12\n\n"
    "In a script:  wbctool explain runs/a cells/ -o looks/ | jq .explain.methods.gradcam.energy.nucleus"
)
@with_options
def explain(
    *,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    source: Annotated[str, typer.Argument(metavar="IN", help="A folder, image, .jsonl file or -.")],
    out: Out,
    compare: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="The same class by another run; what differs.")
    ] = None,
    maps: MapOptions,
    parameters: MethodParameters,
    output: ExplanationOutput,
    split: Annotated[str, typer.Option(metavar="NAME|all", help="Where records carry splits.")] = "test",
    selection: SelectionOptions,
    device: Device = "auto",
    precision: Precision = "auto",
    execution: Annotated[CommandExecution, Only(("shard", "overwrite", "skip_bad", "quiet", "json_"))],
) -> None:
    """Show where a run looks, and score whether that is true."""
    from wbctool.explaining import explain_run

    _check_order(run, source)
    result = explain_run(
        run,
        source,
        out,
        compare=compare,
        maps=maps.model_copy(update={"parameters": parameters.given()}),
        output=output,
        split=split,
        device=device,
        precision=precision,
        selection=selection.selection(),
        execution=execution,
    )
    _print(result, execution.json_)
    raise typer.Exit(result.outcome.exit_code)


def _check_order(run: Path, source: str) -> None:
    """Refuse a run folder in place of images."""
    from wbctool.errors import UsageProblem

    if source != "-" and (Path(source) / "model.json").is_file():
        if (run / "model.json").is_file():
            raise UsageProblem(f"{source}: is a run folder; give it as --compare {source}, and images after {run}")
        raise UsageProblem(f"{source}: is a run folder, which comes first: wbctool explain {source} {run}")


def _print(result: ExplanationResult, json: bool) -> None:
    """Print the scores as tables, on a terminal."""
    from wbctool.console import records_wanted, table
    from wbctool.explaining.summary import comparison_rows, score_rows

    if records_wanted(json):
        return
    summary = result.summary
    for run in summary["runs"]:
        columns, rows = score_rows(run)
        table(f"{run['run']}: {run['method']}", columns, rows)
    agreement = {(run["run"], pair): value for run in summary["runs"] for pair, value in run["agreement"].items()}
    if agreement:
        pairs = [(run, " ~ ".join(pair.split()), f"{value:+.2f}") for (run, pair), value in agreement.items()]
        table("agreement of methods", ("run", "maps", "correlation"), pairs)
    for compared in summary.get("compared", []):
        if compared["figures"]:
            heads = ("second less first run", "difference", "95 % interval", "p", "p (Holm)")
            table(f"{compared['method']}: paired, image by image", heads, comparison_rows(compared["figures"]))
