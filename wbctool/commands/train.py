"""`wbctool train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.options import (
    Device,
    Inputs,
    Jobs,
    Json,
    Overwrite,
    Quiet,
    Seed,
    SelectionOptions,
    SkipBad,
    new_app,
    with_options,
)

app = new_app()
_MODEL = "Model"
_FIT = "Training"


@app.command(
    epilog="Example:  wbctool train cells/ -o runs/a --backbone resnet50 --attention cbam --loss focal\n\n"
    "Fits on the train split, stops on val; without splits it makes its own, 80/20."
)
@with_options
def train(
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="The run folder.")],
    selection: SelectionOptions,
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="Any timm model.", rich_help_panel=_MODEL)
    ] = "efficientnet_b0",
    backbone_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Passed to timm.", rich_help_panel=_MODEL),
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="imagenet|none|FILE", help="Where to start from.", rich_help_panel=_MODEL)
    ] = "imagenet",
    attention: Annotated[
        str, typer.Option(metavar="none|cbam", help="After the backbone.", rich_help_panel=_MODEL)
    ] = "cbam",
    size: Annotated[
        int, typer.Option(min=16, max=2048, metavar="N", help="Side, pixels.", rich_help_panel=_MODEL)
    ] = 224,
    dropout: Annotated[
        float, typer.Option(min=0, max=0.95, metavar="X", help="Before the last layer.", rich_help_panel=_MODEL)
    ] = 0.2,
    mean: Annotated[
        str | None, typer.Option(metavar="M[,M,M]", help="Of the input, 0 to 1.", rich_help_panel=_MODEL)
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="S[,S,S]", help="Of the input, 0 to 1.", rich_help_panel=_MODEL)
    ] = None,
    loss: Annotated[str, typer.Option(metavar="ce|focal", help="The loss.", rich_help_panel=_FIT)] = "ce",
    gamma: Annotated[float, typer.Option(min=0, metavar="X", help="Of the focal loss.", rich_help_panel=_FIT)] = 2.0,
    class_weights: Annotated[
        str, typer.Option(metavar="none|balanced", help="Weights in the loss.", rich_help_panel=_FIT)
    ] = "none",
    augment: Annotated[
        str, typer.Option(metavar="none|flips|full", help="Of each batch.", rich_help_panel=_FIT)
    ] = "flips",
    epochs: Annotated[
        int, typer.Option(min=0, metavar="N", help="In all; 0 saves it untrained.", rich_help_panel=_FIT)
    ] = 20,
    frozen_epochs: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of these, backbone frozen.", rich_help_panel=_FIT)
    ] = 1,
    patience: Annotated[
        int, typer.Option(min=0, metavar="N", help="Epochs without gain till the end; 0: never.", rich_help_panel=_FIT)
    ] = 10,
    batch_size: Annotated[int, typer.Option(min=2, metavar="N", help="Images a step.", rich_help_panel=_FIT)] = 32,
    frozen_lr: Annotated[
        float, typer.Option(min=0, metavar="X", help="Peak rate while frozen.", rich_help_panel=_FIT)
    ] = 3e-3,
    lr: Annotated[float, typer.Option(min=0, metavar="X", help="Peak rate after.", rich_help_panel=_FIT)] = 1e-3,
    weight_decay: Annotated[float, typer.Option(min=0, metavar="X", help="Of AdamW.", rich_help_panel=_FIT)] = 0.01,
    precision: Annotated[
        str, typer.Option(metavar="auto|float32|bf16", help="Of the network.", rich_help_panel=_FIT)
    ] = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    jobs: Jobs = 0,
    overwrite: Overwrite = False,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train an attention classifier; the run folder keeps all that `predict` needs."""
    from wbctool.console import emit, note, records_wanted, table
    from wbctool.errors import DONE, SOME_FAILED
    from wbctool.folders import Selection, Tally, read_inputs
    from wbctool.training.dataset import gather
    from wbctool.training.options import TrainOptions, parse_backbone_args, parse_triple

    options = TrainOptions(
        backbone=backbone,
        backbone_args=parse_backbone_args(backbone_arg or []),
        weights=weights,
        attention=attention,
        size=size,
        dropout=dropout,
        mean=parse_triple(mean, "--mean"),
        std=parse_triple(std, "--std"),
        loss=loss,
        gamma=gamma,
        class_weights=class_weights,
        augment=augment,
        epochs=epochs,
        frozen_epochs=frozen_epochs,
        patience=patience,
        batch_size=batch_size,
        frozen_lr=frozen_lr,
        lr=lr,
        weight_decay=weight_decay,
        precision=precision,
        seed=seed,
    )
    tally = Tally()
    records = list(read_inputs(inputs, selection.selection(), tally))
    tally.refuse_damage()
    dataset = gather(records, seed, quiet)
    if not quiet:
        for line in tally.notes():
            note(line)
    from wbctool.training.run import train as run_training

    run = run_training(dataset, out, options, device, jobs, overwrite, quiet)
    if run["done_before"] and not quiet:
        note(f"{out}: was trained before; --overwrite trains it anew")
    predictions = list(read_inputs([str(out / "predictions.jsonl")], Selection(), Tally()))
    code = SOME_FAILED if run["failures"] and not skip_bad else DONE
    if records_wanted(json):
        for record in predictions:
            emit(record)
        raise typer.Exit(code)
    rows = []
    for name, records in dataset.splits.items():
        own = [record for record in predictions if record["split"] == name]
        right = sum(record["predicted"] == record["label"] for record in own)
        rows.append((name, f"{len(records):,}", f"{right / len(own):.3f}" if own else ""))
    table(f"{out}: {len(dataset.classes)} classes", ("split", "images", "accuracy"), rows)
    note(f"more: wbctool evaluate {out}")
    raise typer.Exit(code)
