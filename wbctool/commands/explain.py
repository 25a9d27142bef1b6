"""`wbctool explain`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from wbctool.commands.options import (
    Device,
    Json,
    Out,
    Overwrite,
    Precision,
    Quiet,
    SelectionOptions,
    Shard,
    SkipBad,
    new_app,
    with_options,
)
from wbctool.explaining import METHODS

app = new_app()

ALL = "all"


@dataclass(frozen=True)
class MapOptions:
    """Which maps are made."""

    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(METHODS.names())}; repeatable.",
        ),
    ] = None
    of_class: Annotated[
        str, typer.Option("--class", metavar="NAME", help="Explained class: predicted, label, or a name.")
    ] = "predicted"
    layer: Annotated[list[str] | None, typer.Option(metavar="NAME", help="(the last with a map)")] = None
    channels: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="scorecam: the K most active channels only.")
    ] = None
    views: Annotated[
        int | None,
        typer.Option(min=1, max=8, metavar="N", help="Flips and turns for a mean map. (as the run predicts)"),
    ] = None


@dataclass(frozen=True)
class ShownOptions:
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
    how: MapOptions,
    shown: ShownOptions,
    selection: SelectionOptions,
    compare: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="The same class by another run; what differs.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME|all", help="Where records carry splits.")] = "test",
    device: Device = "auto",
    precision: Precision = "auto",
    shard: Shard = None,
    overwrite: Overwrite = False,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show where a run looks, and score whether that is true."""
    from wbctool.console import loading, note, records_wanted, warn
    from wbctool.errors import DONE, SOME_FAILED, InputError, UsageProblem
    from wbctool.explaining.method import parameters_of
    from wbctool.inputs.folders import read_inputs
    from wbctool.inputs.run_folders import read_info
    from wbctool.pipeline.runner import names_of, nothing_found, parse_shard
    from wbctool.records import SPLITS
    from wbctool.records.selection import Tally

    if source != "-" and (Path(source) / "model.json").is_file():
        if (run / "model.json").is_file():
            raise UsageProblem(f"{source}: is a run folder; give it as --compare {source}, and images after {run}")
        raise UsageProblem(f"{source}: is a run folder, which comes first: wbctool explain {source} {run}")
    if shown.sheet and shown.no_panels:
        raise UsageProblem("--sheet is made of panels; leave out --no-panels")
    if shown.sheet and shard:
        raise UsageProblem("--sheet needs all panels; leave out --shard")
    methods = tuple(dict.fromkeys(how.method or ["gradcam"]))
    parameters = {"channels": how.channels} if how.channels else {}
    parameters_of(methods, parameters)
    if split not in (*SPLITS, ALL):
        raise UsageProblem(f"--split {split}: choose from {', '.join(SPLITS)}, {ALL}")
    parse_shard(shard)
    tally = Tally()
    stream = read_inputs([source], selection.selection(), tally)
    first = next(stream, None)
    if first is None:
        raise InputError(nothing_found([source], tally))

    for path in (run, compare):
        if path:
            read_info(path)
    with loading(quiet):
        from wbctool.device import pick_device
        from wbctool.explaining.explained_run import ExplainedRun
        from wbctool.explaining.options import MapOptions as Options
        from wbctool.explaining.run import Making, explain_into
        from wbctool.modeling.run_folder import load

    where = pick_device(device)
    options = Options(methods, how.of_class, tuple(how.layer or ()), how.views, shown.faithfulness, parameters)
    subjects = [ExplainedRun(load(path, where), options, where, precision) for path in (run, compare) if path]
    making = Making(not shown.no_panels, shown.maps, shown.sheet, split, shard, overwrite, quiet, records_wanted(json))
    report = explain_into(out, subjects, chain([first], stream), names_of([source]), making)
    counts = report.counts
    if not quiet:
        for name, number in report.otherwise.items():
            if number:
                warn(f"{number:,} images were prepared otherwise than those of {name} (see `wbctool info {name}`)")
        for line in tally.notes():
            note(line)
        for key, text in _NOTES.items():
            if counts[key]:
                note(f"{counts[key]:,} {text}")
    if not report.summary:
        raise InputError(
            f"{source}: holds nothing to explain of the split {split}; give --split {ALL}, or other images"
        )
    failed = counts["failed"] + tally.counts["damaged"]
    if failed and not quiet:
        note(f"{failed:,} inputs failed; {out} holds an error record for each")
    if not records_wanted(json):
        _show(report.summary)
    raise typer.Exit(SOME_FAILED if failed and not skip_bad else DONE)


_NOTES = {
    "reused": "images were done before",
    "of other splits": "images of other splits left out (--split)",
    "without a cell": "fields without a cell left out",
    "without a mask": "images carry no mask: no energy in nucleus and cell (`wbctool segment` and `crop` make masks)",
    "blank": "maps are empty: nothing in them speaks for the class",
}


def _show(summary: dict[str, Any]) -> None:
    from wbctool.console import table
    from wbctool.explaining.summary import comparison_rows, score_rows

    for run in summary["runs"]:
        columns, rows = score_rows(run)
        table(f"{run['run']}: {run['method']}", columns, rows)
    alike = {(run["run"], pair): value for run in summary["runs"] for pair, value in run["agreement"].items()}
    if alike:
        pairs = [(run, " ~ ".join(pair.split()), f"{value:+.2f}") for (run, pair), value in alike.items()]
        table("agreement of methods", ("run", "maps", "correlation"), pairs)
    for one in summary.get("compared", []):
        if one["figures"]:
            heads = ("second less first run", "difference", "95 % interval", "p", "p (Holm)")
            table(f"{one['method']}: paired, image by image", heads, comparison_rows(one["figures"]))
