"""`wbctool explain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.generated import GivenOptions, options_of
from wbctool.commands.options import (
    Device,
    Out,
    Precision,
    RunOptions,
    SelectionOptions,
    Shard,
    new_app,
    with_options,
)
from wbctool.explaining.method import METHODS

if TYPE_CHECKING:
    from wbctool.explaining import ExplanationResult, MapOptions

    MethodParameters = GivenOptions
else:
    MethodParameters = options_of("MethodParameters", {method.name: method.parameters for method in METHODS})

app = new_app()


@dataclass(frozen=True)
class MapFlags:
    """Which maps are made."""

    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(METHODS.names())}; repeatable. (gradcam)",
        ),
    ] = None
    of_class: Annotated[
        str, typer.Option("--class", metavar="NAME", help="Explained class: predicted, label, or a name.")
    ] = "predicted"
    layer: Annotated[list[str] | None, typer.Option(metavar="NAME", help="(the last with a map)")] = None
    views: Annotated[
        int | None,
        typer.Option(min=1, max=8, metavar="N", help="Flips and turns for a mean map. (as the run predicts)"),
    ] = None


@dataclass(frozen=True)
class OutputFlags:
    """What is made of the maps."""

    faithfulness: Annotated[bool, typer.Option("--faithfulness", help="Also deletion and insertion.")] = False
    sheet: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Sheets of N panels a class; right, wrong apart.")
    ] = None
    maps: Annotated[bool, typer.Option("--maps", help="Also the maps, as .npz.")] = False
    no_panels: Annotated[bool, typer.Option("--no-panels", help="Records and scores only.")] = False


@app.command(
    epilog="Example:  wbctool explain runs/a cells/ -o looks/\n\n"
    "Baseline, CBAM, their difference:  wbctool explain runs/plain cells/ --compare runs/cbam -o looks/ --sheet 12\n\n"
    "In a script:  wbctool explain runs/a cells/ -o looks/ | jq .explain.methods.gradcam.energy.nucleus"
)
@with_options
def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    source: Annotated[str, typer.Argument(metavar="IN", help="A folder, image, .jsonl file or -.")],
    out: Out,
    map_flags: MapFlags,
    parameters: MethodParameters,
    output_flags: OutputFlags,
    selection: SelectionOptions,
    compare: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="The same class by another run; what differs.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME|all", help="Where records carry splits.")] = "test",
    device: Device = "auto",
    precision: Precision = "auto",
    shard: Shard = None,
    run_options: RunOptions = RunOptions(),
) -> None:
    """Show where a run looks, and score whether that is true."""
    from wbctool.explaining import ExplanationOutput, explain_run

    _check_order(run, source)
    result = explain_run(
        run,
        source,
        out,
        compare=compare,
        maps=_map_options(map_flags, parameters, output_flags.faithfulness),
        output=ExplanationOutput(not output_flags.no_panels, output_flags.maps, output_flags.sheet),
        split=split,
        device=device,
        precision=precision,
        selection=selection.selection(),
        execution=run_options.execution(shard=shard),
    )
    _print(result, run_options.json)
    raise typer.Exit(result.outcome.exit_code)


def _check_order(run: Path, source: str) -> None:
    """Refuse a run folder in place of images."""
    from wbctool.errors import UsageProblem

    if source != "-" and (Path(source) / "model.json").is_file():
        if (run / "model.json").is_file():
            raise UsageProblem(f"{source}: is a run folder; give it as --compare {source}, and images after {run}")
        raise UsageProblem(f"{source}: is a run folder, which comes first: wbctool explain {source} {run}")


def _map_options(flags: MapFlags, parameters: GivenOptions, faithfulness: bool) -> MapOptions:
    """The flags as the package takes them."""
    from wbctool.explaining import MapOptions

    methods = tuple(dict.fromkeys(flags.method or ["gradcam"]))
    layers = tuple(flags.layer or ())
    return MapOptions(methods, flags.of_class, layers, flags.views, faithfulness, parameters.given())


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
