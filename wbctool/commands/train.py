"""`wbctool train`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wbctool.commands.generated import GivenOptions, options_of
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
from wbctool.training.plans import TrainingPlan
from wbctool.training.recipe import Recipe
from wbctool.training.recipe_files import read_recipe

if TYPE_CHECKING:
    from wbctool.training import TrainedRun, TrainingOptions, TrainingResult

    RecipeOptions = GivenOptions
    PlanOptions = GivenOptions
else:  # help shows what is done where no recipe is named
    RecipeOptions = options_of("RecipeOptions", {"": Recipe}, read_recipe("best").model_dump())
    PlanOptions = options_of("PlanOptions", {"": TrainingPlan})

app = new_app()
_RUNNING = "Running"


@dataclass(frozen=True)
class RecipeChoice:
    """The recipe, and keys of it that have no option of their own."""

    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="What is chosen where no flag says otherwise. (best)")
    ] = None
    show: Annotated[bool, typer.Option("--show", help="Print the recipe with its flags as TOML, and end.")] = False
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key that --show prints.")
    ] = None
    backbone_arg: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Passed to timm.")] = None
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of all chance. (0)", rich_help_panel=_RUNNING)
    ] = None

    def values(self) -> dict[str, Any]:
        """The keys that were given."""
        arguments = parse_pairs(self.backbone_arg, "--backbone-arg") if self.backbone_arg else None
        return {**parse_pairs(self.set_ or [], "--set"), "backbone_args": arguments, "seed": self.seed}


@dataclass(frozen=True)
class Means:
    """How a training is run."""

    resume: Annotated[bool, typer.Option("--resume", help="Go on, as RUN was started.", rich_help_panel=_RUNNING)] = (
        False
    )
    cache_gb: Annotated[
        float | None,
        typer.Option(min=0, metavar="X", help="Disk for decoded images. (what is free)", rich_help_panel=_RUNNING),
    ] = None
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.", rich_help_panel=_RUNNING)] = False
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write events for it.", rich_help_panel=_RUNNING)
    ] = False
    device: Device = "auto"
    jobs: Jobs = 0
    overwrite: Overwrite = False
    quiet: Quiet = False

    def options(self) -> TrainingOptions:
        """As the package takes them."""
        from wbctool.training import TrainingOptions

        return TrainingOptions(**{field.name: getattr(self, field.name) for field in fields(TrainingOptions)})


@app.command(
    epilog="Example:  wbctool train cells/ -o runs/a --backbone resnet50 --attention cbam --loss focal\n\n"
    "Fits on the train split, stops on val; without splits it makes its own, 80/20."
)
@with_options
def train(
    selection: SelectionOptions,
    keys: RecipeOptions,
    choice: RecipeChoice,
    plan: PlanOptions,
    means: Means,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="IN", help="Folders, .jsonl record files, or -; with --ensemble run folders first."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="The run folder.")] = None,
    allow_synthetic: AllowSynthetic = False,
    skip_bad: SkipBad = False,
    json: Json = False,
) -> None:
    """Train an attention classifier; the run folder keeps all that `predict` needs."""
    from wbctool.console import emit, records_wanted
    from wbctool.errors import DONE, SOME_FAILED, UsageProblem
    from wbctool.pipeline.parameters import checked, option_name
    from wbctool.training import choose_recipe, train_run
    from wbctool.training.recipe_files import recipe_comments, to_toml

    if (out is None or not inputs) and not choice.show:
        missing = "option '--out' / '-o'" if inputs else "argument 'IN...'"
        raise UsageProblem(f"Missing {missing} (see `wbctool train --help`)")
    if means.resume and (choice.recipe or means.overwrite):
        raise UsageProblem("--resume takes the settings of RUN; leave --recipe and --overwrite out")
    if means.resume and out is None:
        raise UsageProblem("--resume: name the run folder with -o RUN")
    values = {**keys.given(), **choice.values()}
    recipe = choose_recipe(choice.recipe, values, out if means.resume else None)
    if choice.show or out is None or not inputs:
        print(to_toml(recipe, () if means.resume else recipe_comments(choice.recipe or "best")), end="")
        return

    def emit_predictions(run: TrainedRun) -> None:
        for record in run.predictions():
            emit(record)

    result = train_run(
        inputs,
        out,
        recipe,
        plan=checked(TrainingPlan, plan.given(), option_name),
        selection=selection.selection(),
        options=means.options(),
        allow_synthetic=allow_synthetic,
        on_run=emit_predictions if records_wanted(json) else None,
    )
    if not records_wanted(json):
        _show(out, result)
    raise typer.Exit(SOME_FAILED if result.failures and not skip_bad else DONE)


def _show(out: Path, result: TrainingResult) -> None:
    """Print images and accuracy of each run, once in several processes."""
    from wbctool.console import note, table
    from wbctool.training.processes import is_main_process

    if not is_main_process():
        return
    rows = []
    for run in result.runs:
        accuracy = {split: f"{value:.3f}" for split, value in run.accuracy().items()}
        rows += [(str(run.path), split, f"{n:,}", accuracy.get(split, "")) for split, n in run.images.items()]
    table(f"{out}: {len(result.class_names)} classes", ("run", "split", "images", "accuracy"), rows)
    note(f"more: wbctool evaluate {' '.join(str(run.path) for run in result.runs)}")
