"""`wbctool segment`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.generated import GivenOptions, options_of, with_options
from wbctool.commands.options import CommandExecution, Inputs, Out, SelectionOptions, new_app
from wbctool.segmentation.method import METHODS

if TYPE_CHECKING:
    MethodOptions = GivenOptions
else:
    MethodOptions = options_of("MethodOptions", {method.name: method.parameters for method in METHODS})


def _methods() -> str:
    """The methods by what they find."""
    names: dict[str, list[str]] = {}
    for method in METHODS:
        names.setdefault(method.objects, []).append(method.name)
    return " ".join(f"{objects.capitalize()}: {', '.join(names[objects])}." for objects in sorted(names, reverse=True))


app = new_app()


@app.command(
    epilog="Example:  wbctool segment smears/ -o masks/\n\n"
    "Each image gives one label image (PNG) and one record with its cells."
)
@with_options
def segment(
    *,
    inputs: Inputs,
    out: Out,
    method: Annotated[str, typer.Option(metavar="NAME", help=_methods())] = "unet",
    method_options: MethodOptions,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also draw outlines, into OUT/overlays.")] = False,
    coco: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write COCO annotations (.json).")] = None,
    selection: SelectionOptions,
    execution: CommandExecution,
) -> None:
    """Find white cells with their nuclei, red cells and platelets in smear images."""
    from wbctool.console import records_wanted, table
    from wbctool.segmentation import segment_images
    from wbctool.segmentation.image_warnings import WARNINGS

    result = segment_images(
        inputs,
        out,
        method,
        method_options.given(),
        overlays=overlay,
        coco=coco,
        selection=selection.selection(),
        execution=execution,
    )
    if not records_wanted(execution.json_):
        names = {"wbc": "white cells", "platelet": "platelets", "rbc": "red cells"}
        rows = [(name, f"{result.objects[kind]:,}", f"{result.images[kind]:,}") for kind, name in names.items()]
        rows.append(("no white cell", "", f"{result.images['no_white_cell']:,}"))
        for key, name in WARNINGS.items():
            if result.warnings[key]:
                rows.append((name, f"{result.warnings[key]:,}", f"{result.images[key]:,}"))
        table(f"{out}: masks of {result.outcome.records:,} images", ("found", "objects", "in images"), rows)
    raise typer.Exit(result.outcome.exit_code)
