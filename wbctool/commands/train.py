"""`wbctool train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wbctool.commands.generated import GivenOptions, options_of, with_options
from wbctool.commands.options import AllowSynthetic, Json, SelectionOptions, SkipBad, new_app, parse_pairs
from wbctool.training.recipe import Recipe, TrainingOptions, TrainingPlan
from wbctool.training.recipe_files import read_recipe

if TYPE_CHECKING:
    from wbctool.training import TrainedRun

    RecipeOptions = GivenOptions
else:  # help shows what is done where no recipe is named
    RecipeOptions = options_of("RecipeOptions", {"": Recipe}, read_recipe("best").model_dump())

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

    def choose(self, keys: dict[str, Any], resume: Path | None) -> Recipe:
        """The recipe, with the keys that are options over it; or that of a run folder to resume."""
        from wbctool.training import choose_recipe

        arguments = parse_pairs(self.backbone_arg, "--backbone-arg") if self.backbone_arg else None
        keys = {**keys, **parse_pairs(self.set_ or [], "--set"), "backbone_args": arguments, "seed": self.seed}
        return choose_recipe(self.recipe, keys, resume)


@app.command(
    epilog="Example:  wbctool train cells/ -o runs/a --backbone resnet50 --attention cbam --loss focal\n\n"
    "Fits on the train split, stops on val; without splits it makes its own, 80/20."
)
@with_options
def train(
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="IN", help="Folders, .jsonl record files, or -; with --ensemble run folders first."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="The run folder.")] = None,
    choice: RecipeChoice,
    keys: RecipeOptions,
    plan: TrainingPlan,
    selection: SelectionOptions,
    allow_synthetic: AllowSynthetic = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on, as RUN was started.", rich_help_panel=_RUNNING)
    ] = False,
    options: TrainingOptions,
    skip_bad: SkipBad = False,
    json: Json = False,
) -> None:
    """Train an attention classifier; the run folder keeps all that `predict` needs."""
    from wbctool.console import records_wanted
    from wbctool.errors import DONE, SOME_FAILED
    from wbctool.training import train_run
    from wbctool.training.recipe_files import recipe_comments, to_toml

    _check_usage(inputs, out, choice, resume, options.overwrite)
    recipe = choice.choose(keys.given(), out if resume else None)
    if choice.show or out is None or not inputs:
        print(to_toml(recipe, () if resume else recipe_comments(choice.recipe or "best")), end="")
        return
    runs = train_run(
        inputs,
        out,
        recipe,
        plan=plan,
        selection=selection.selection(),
        options=options,
        allow_synthetic=allow_synthetic,
        on_run=_emit_predictions if records_wanted(json) else None,
    )
    if not records_wanted(json):
        _show(out, runs)
    raise typer.Exit(SOME_FAILED if any(run.failures for run in runs) and not skip_bad else DONE)


def _check_usage(
    inputs: list[str] | None, out: Path | None, choice: RecipeChoice, resume: bool, overwrite: bool
) -> None:
    from wbctool.errors import UsageProblem

    if (out is None or not inputs) and not choice.show:
        missing = "option '--out' / '-o'" if inputs else "argument 'IN...'"
        raise UsageProblem(f"Missing {missing} (see `wbctool train --help`)")
    if resume and (choice.recipe or overwrite):
        raise UsageProblem("--resume takes the settings of RUN; leave --recipe and --overwrite out")
    if resume and out is None:
        raise UsageProblem("--resume: name the run folder with -o RUN")


def _emit_predictions(run: TrainedRun) -> None:
    from wbctool.console import emit

    for record in run.predictions():
        emit(record)


def _show(out: Path, runs: list[TrainedRun]) -> None:
    """Print images and accuracy of each run, once in several processes."""
    from wbctool.console import note, table
    from wbctool.training.experiment import is_main_process

    if not is_main_process():
        return
    rows = []
    for run in runs:
        accuracy = {split: f"{value:.3f}" for split, value in run.accuracy().items()}
        rows += [(str(run.path), split, f"{n:,}", accuracy.get(split, "")) for split, n in run.images.items()]
    table(f"{out}: {len(runs[0].class_names)} classes", ("run", "split", "images", "accuracy"), rows)
    note(f"more: wbctool evaluate {' '.join(str(run.path) for run in runs)}")
