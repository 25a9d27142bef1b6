"""`wbctool train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wbctool.commands.options import (
    AllowSynthetic,
    Device,
    Jobs,
    Json,
    Overwrite,
    Quiet,
    SelectionOptions,
    SkipBad,
    new_app,
    parse_pairs,
    with_options,
)
from wbctool.commands.recipe_options import RecipeOptions

if TYPE_CHECKING:
    from wbctool.training.many import Splits
    from wbctool.training.recipe import Recipe

app = new_app()
_MANY = "Several runs"
_HOW = "Running"


@app.command(
    epilog="Example:  wbctool train cells/ -o runs/a --backbone resnet50 --attention cbam --loss focal\n\n"
    "Fits on the train split, stops on val; without splits it makes its own, 80/20."
)
@with_options
def train(
    selection: SelectionOptions,
    options: RecipeOptions,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="IN", help="Folders, .jsonl record files, or -; with --ensemble run folders first."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="The run folder.")] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="What is chosen where no flag says otherwise. (best)")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe with its flags as TOML, and end.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key that --show prints.")
    ] = None,
    backbone_arg: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Passed to timm.")] = None,
    probe: Annotated[
        str | None,
        typer.Option(metavar="linear|knn", help="Fit only a classifier on frozen features.", rich_help_panel=_MANY),
    ] = None,
    ensemble: Annotated[
        str | None, typer.Option(metavar="average|cbam", help="Make one of several runs.", rich_help_panel=_MANY)
    ] = None,
    folds: Annotated[
        int | None, typer.Option(metavar="K", help="Cross-validate, into RUN/fold-I.", rich_help_panel=_MANY)
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(metavar="N", help="New splits each time, RUN/repeat-I.", rich_help_panel=_MANY)
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(metavar="TRAIN/VAL/TEST", help="Of --repeats. (70/15/15)", rich_help_panel=_MANY),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on, as RUN was started.", rich_help_panel=_HOW)] = False,
    cache_gb: Annotated[
        float | None,
        typer.Option(min=0, metavar="X", help="Disk for decoded images. (what is free)", rich_help_panel=_HOW),
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.", rich_help_panel=_HOW)] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write events for it.", rich_help_panel=_HOW)
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of all chance. (0)", rich_help_panel=_HOW)
    ] = None,
    allow_synthetic: AllowSynthetic = False,
    device: Device = "auto",
    jobs: Jobs = 0,
    overwrite: Overwrite = False,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train an attention classifier; the run folder keeps all that `predict` needs."""
    from wbctool.errors import UsageProblem
    from wbctool.training.many import Splits
    from wbctool.training.recipe import CUSTOM_CNN, of_length, read_recipe, read_started, with_choices

    given = {
        **options.given(),
        **parse_pairs(set_ or [], "--set"),
        "backbone_args": parse_pairs(backbone_arg, "--backbone-arg") if backbone_arg else None,
        "seed": seed,
    }
    if (out is None or not inputs) and not show:
        missing = "option '--out' / '-o'" if inputs else "argument 'IN...'"
        raise UsageProblem(f"Missing {missing} (see `wbctool train --help`)")
    about: list[str] = []
    if resume:
        if recipe or overwrite:
            raise UsageProblem("--resume takes the settings of RUN; leave --recipe and --overwrite out")
        if out is None:
            raise UsageProblem("--resume: name the run folder with -o RUN")
        base = read_started(out)
    else:
        if given["backbone"] == CUSTOM_CNN and given["weights"] is None:
            given["weights"] = "none"  # there are none for it
        base, about = read_recipe(_best_for(given) if recipe in (None, "best") else recipe)
    if given["patience"] and base.best_by == "last":  # to wait for a gain is to want the best
        given = {"best_by": "balanced_accuracy", **given}
    chosen = with_choices(base, given)
    if given["epochs"] is not None and not resume:
        in_proportion = of_length(with_choices(base, {**given, "epochs": None}), chosen.epochs)
        chosen = with_choices(in_proportion, given)
    if show or out is None or not inputs:
        print(chosen.to_toml(about), end="")
        return
    splits = Splits(folds, repeats, ratio)
    raise typer.Exit(
        _train(
            *(inputs, out, chosen, splits, selection),
            {"probe": probe, "ensemble": ensemble},
            {
                "device": device,
                "jobs": jobs,
                "cache_gb": cache_gb,
                "overwrite": overwrite,
                "compiled": compile,
                "tensorboard": tensorboard,
                "quiet": quiet,
            },
            *(allow_synthetic, skip_bad, json),
        )
    )


def _best_for(given: dict[str, Any]) -> str:
    """`best`, or the variant of it that the network is trained by."""
    from wbctool.modeling.classifier import has_batch_norm
    from wbctool.training.recipe import Recipe

    if given["weights"] == "none":
        return "best:scratch"
    return "best" if has_batch_norm(given["backbone"] or Recipe().backbone) else "best:no-batch-norm"


def _train(
    inputs: list[str],
    out: Path,
    recipe: Recipe,
    splits: Splits,
    selection: SelectionOptions,
    kind: dict[str, Any],
    how: dict[str, Any],
    allow_synthetic: bool,
    skip_bad: bool,
    json: bool,
) -> int:
    from dataclasses import replace

    from wbctool.console import emit, loading, note, records_wanted, table
    from wbctool.errors import DONE, SOME_FAILED, UsageProblem
    from wbctool.inputs.dataset import gather
    from wbctool.inputs.folders import read_inputs
    from wbctool.modeling.known import refuse_known, with_their_splits
    from wbctool.records.selection import Selection
    from wbctool.records.tally import Tally
    from wbctool.training.processes import is_main_process

    quiet = how["quiet"] = how["quiet"] or not is_main_process()
    members = [Path(given) for given in inputs if (Path(given) / "model.json").is_file()]
    images = [given for given in inputs if Path(given) not in members]
    if not images:
        raise UsageProblem(f"{inputs[0]}: is a run folder; give images, too")
    tally = Tally()
    records = list(read_inputs(images, selection.selection(), tally))
    tally.refuse_damage()
    if not quiet:
        for line in tally.notes():
            note(line)
    if members:
        records = with_their_splits(records, members, quiet)
    plans = [(out, recipe, gather(records, recipe.seed, quiet, allow_synthetic))] if splits.is_empty else []
    for name, seed, split in splits.over(records, recipe.seed):
        plans.append((out / name, replace(recipe, seed=seed), gather(split, seed, quiet, allow_synthetic)))
    for _, _, dataset in plans:
        refuse_known(dataset, members)

    with loading(quiet):
        from wbctool.training.run import Kind, Running, train

    rows, failures = [], []
    for place, own, dataset in plans:
        if len(plans) > 1 and not quiet:
            note(f"{place}:")
        run = train(dataset, place, own, Running(**how), Kind(kind["probe"], kind["ensemble"], tuple(members)))
        failures += run["failures"]
        if not is_main_process():
            continue
        if run["done_before"] and not quiet:
            note(f"{place}: was trained before; --overwrite trains it anew")
        predictions = list(read_inputs([str(place / "predictions.jsonl")], Selection(), Tally()))
        if records_wanted(json):
            for record in predictions:
                emit(record)
            continue
        for name, split in dataset.splits.items():
            made = [record for record in predictions if record["split"] == name]
            right = sum(record["predicted"] == record["label"] for record in made)
            rows.append((str(place), name, f"{len(split):,}", f"{right / len(made):.3f}" if made else ""))
    if is_main_process() and not records_wanted(json):
        classes = len(plans[0][2].classes)
        table(f"{out}: {classes} classes", ("run", "split", "images", "accuracy"), rows)
        note(f"more: wbctool evaluate {' '.join(str(place) for place, _, _ in plans)}")
    return SOME_FAILED if failures and not skip_bad else DONE
