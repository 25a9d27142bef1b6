"""`wbctool segment`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.options import ExecutionOptions, Inputs, Out, SelectionOptions, new_app, numbers, with_options

if TYPE_CHECKING:
    from wbctool.records import Record

_CONSTANTS = "Constants of the published methods"
_SAM = "Segment Anything"

app = new_app()


@app.command(
    epilog="Example:  wbctool segment smears/ -o masks/\n\n"
    "Each image gives one label image (PNG) and one record with its cells."
)
@with_options
def segment(
    inputs: Inputs,
    out: Out,
    selection: SelectionOptions,
    execution: ExecutionOptions,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="stain (default): whole cells, red cells, platelets. Nuclei only, as published: cyan-otsu, "
            "purple-index, rgb, hsv, lab, hed, watershed. sam: Segment Anything.",
        ),
    ] = "stain",
    as_published: Annotated[
        bool, typer.Option("--as-published", help="rgb, lab, watershed: to the letter (inverted).")
    ] = False,
    split_touching: Annotated[
        bool, typer.Option("--split-touching", help="Marker watershed; stain always parts cells.")
    ] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also draw outlines, into OUT/overlays.")] = False,
    coco: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write COCO annotations (.json).")] = None,
    theta: Annotated[
        float | None, typer.Option(metavar="T", help="purple-index: threshold. (Otsu's)", rich_help_panel=_CONSTANTS)
    ] = None,
    rgb_thresholds: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="rgb: thresholds. (0.5,0.3,0.4)", rich_help_panel=_CONSTANTS)
    ] = None,
    hue: Annotated[
        float | None,
        typer.Option(metavar="DEGREES", help="hsv: hue. (270)", rich_help_panel=_CONSTANTS),
    ] = None,
    hue_width: Annotated[
        float | None,
        typer.Option(metavar="DEGREES", help="hsv: either side. (15)", rich_help_panel=_CONSTANTS),
    ] = None,
    min_saturation: Annotated[
        float | None, typer.Option(metavar="S", help="hsv: saturation. (0.2)", rich_help_panel=_CONSTANTS)
    ] = None,
    radius: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Opening's disk. (3; cyan-otsu 1)", rich_help_panel=_CONSTANTS),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(metavar="N", help="Erosions, then dilations. (2)", rich_help_panel=_CONSTANTS),
    ] = None,
    min_area: Annotated[
        float | None, typer.Option(metavar="PX", help="Least object. (80)", rich_help_panel=_CONSTANTS)
    ] = None,
    smooth: Annotated[
        float | None,
        typer.Option(metavar="PX", help="Gaussian over the mask. (1)", rich_help_panel=_CONSTANTS),
    ] = None,
    split_peak_share: Annotated[
        float | None,
        typer.Option(metavar="S", help="Peaks over this depth. (0.5)", rich_help_panel=_CONSTANTS),
    ] = None,
    split_peak_area: Annotated[
        float | None, typer.Option(metavar="PX", help="Least marker. (127)", rich_help_panel=_CONSTANTS)
    ] = None,
    split_marker_radius: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Markers dilated. (2)", rich_help_panel=_CONSTANTS),
    ] = None,
    split_cut: Annotated[
        float | None,
        typer.Option(metavar="S", help="Markers cut at this depth. (0.4)", rich_help_panel=_CONSTANTS),
    ] = None,
    sam_checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights (.pth).", rich_help_panel=_SAM)
    ] = None,
    sam_model: Annotated[
        str | None, typer.Option(metavar="vit_b|vit_l|vit_h", help="Its architecture. (vit_b)", rich_help_panel=_SAM)
    ] = None,
    sam_points: Annotated[
        int | None, typer.Option(metavar="N", help="Points a side. (32)", rich_help_panel=_SAM)
    ] = None,
    sam_device: Annotated[
        str | None, typer.Option("--device", metavar="auto|cpu|cuda", help="Where. (auto)", rich_help_panel=_SAM)
    ] = None,
) -> None:
    """Find white cells with their nuclei, red cells and platelets in smear images."""
    from dataclasses import replace

    from wbctool.console import records_wanted, table
    from wbctool.pipeline.runner import parse_shard, run_step
    from wbctool.segmentation.coco import CocoFile
    from wbctool.segmentation.step import segment_step

    images: Counter[str] = Counter()
    found: Counter[str] = Counter()

    def count(record: Record) -> None:
        kinds = Counter(cell["kind"] for cell in record.get("cells", ()))
        found.update(kinds)
        images.update(kinds.keys())
        images["none"] += "cells" in record and not kinds["wbc"]

    given = {
        "as_published": as_published,
        "split_touching": split_touching,
        "theta": theta,
        "rgb_thresholds": numbers("--rgb-thresholds", rgb_thresholds, 3),
        "hue": hue,
        "hue_width": hue_width,
        "min_saturation": min_saturation,
        "radius": radius,
        "iterations": iterations,
        "min_area": min_area,
        "smooth": smooth,
        "split_peak_share": split_peak_share,
        "split_peak_area": split_peak_area,
        "split_marker_radius": split_marker_radius,
        "split_cut": split_cut,
        "sam_checkpoint": str(sam_checkpoint.absolute()) if sam_checkpoint else None,
        "sam_model": sam_model,
        "sam_points": sam_points,
        "device": sam_device,
    }
    step = segment_step(method, given, overlay)
    how = execution.execution()
    if method == "sam" and not how.jobs:
        how = replace(how, jobs=1)  # one model in memory, and one on the GPU
    annotations = CocoFile(coco, out, parse_shard(how.shard)) if coco else None

    def take(record: Record) -> None:
        count(record)
        if annotations:
            annotations.add(record)

    outcome = run_step(step, inputs, out, selection.selection(), how, take)
    if annotations:
        annotations.write()
    if not records_wanted(execution.json):
        names = {"wbc": "white cells", "platelet": "platelets", "rbc": "red cells"}
        rows = [(name, f"{found[kind]:,}", f"{images[kind]:,}") for kind, name in names.items()]
        rows.append(("no white cell", "", f"{images['none']:,}"))
        table(f"{out}: masks of {outcome.records:,} images", ("found", "objects", "in images"), rows)
    raise typer.Exit(outcome.exit_code)
