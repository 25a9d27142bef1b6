"""`wbctool xgboost-fuse`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.generated import GivenOptions, Only, options_of, with_options
from wbctool.commands.options import (
    AllowSynthetic,
    CommandExecution,
    Device,
    Precision,
    Seed,
    SelectionOptions,
    new_app,
    parse_pairs,
)
from wbctool.fusing import BoostingOptions, FusionOptions

if TYPE_CHECKING:
    from wbctool.fusing.features import ComputedFeatures
    from wbctool.fusing.run import FusionResult

    FeatureOptions = GivenOptions
    TreeOptions = GivenOptions
else:
    FeatureOptions = options_of("FeatureOptions", {"": FusionOptions})
    TreeOptions = options_of("TreeOptions", {"": BoostingOptions})

app = new_app()


@app.command(
    epilog="Example:  wbctool xgboost-fuse runs/a runs/b cells/ -o runs/fused --morphology\n\n"
    "Then:  wbctool predict runs/fused cells/ | wbctool evaluate -"
)
@with_options
def xgboost_fuse(
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="RUN... IN...", help="Run folders, then folders, .jsonl record files, or -."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The fused run folder.")],
    feature_options: FeatureOptions,
    features: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where features are kept. (OUT/features)")
    ] = None,
    features_only: Annotated[
        bool, typer.Option("--features-only", help="Write features.npz and records, no trees.")
    ] = False,
    tree_options: TreeOptions,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="XGBoost's: max_depth=3, …", rich_help_panel="Trees"),
    ] = None,
    selection: SelectionOptions,
    allow_synthetic: AllowSynthetic = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    execution: Annotated[CommandExecution, Only(("jobs", "overwrite", "skip_bad", "quiet", "json_"))],
) -> None:
    """Fuse deep features and morphology by gradient-boosted trees; the result is a run folder."""
    from wbctool.console import emit, records_wanted
    from wbctool.errors import DONE, SOME_FAILED, UsageProblem
    from wbctool.fusing import compute_features, fuse_runs
    from wbctool.pipeline.parameters import checked, option_name

    given = {**tree_options.given(), "seed": seed, "parameters": parse_pairs(set_ or [], "--set")}
    trees = checked(BoostingOptions, {**given, "device": device}, option_name)
    chosen = {**feature_options.given(), "precision": precision, "settings": trees}
    options = checked(FusionOptions, chosen, option_name)
    if features_only and (options.tune or trees != BoostingOptions(device=device)):
        raise UsageProblem("--features-only: grows no trees; leave their options out")
    runs = [Path(given) for given in arguments if (Path(given) / "model.json").is_file()]
    inputs = [given for given in arguments if Path(given) not in runs]
    fuse = partial(fuse_runs, allow_synthetic=allow_synthetic)
    write: Callable[..., ComputedFeatures | FusionResult] = compute_features if features_only else fuse
    result = write(
        *(runs, inputs, out, options),
        features=features,
        selection=selection.selection(),
        execution=execution,
        on_record=emit if records_wanted(execution.json_) else None,
    )
    if not records_wanted(execution.json_):
        _show(result, execution.quiet)
    raise typer.Exit(SOME_FAILED if result.failed and not execution.skip_bad else DONE)


def _show(result: ComputedFeatures | FusionResult, quiet: bool) -> None:
    """Print tables."""
    from wbctool.console import note, table
    from wbctool.fusing.features import ComputedFeatures

    if isinstance(result, ComputedFeatures):
        rows = [(family, f"{count:,}") for family, count in result.families.items()]
        table(f"{result.file}: {result.images:,} images", ("family", "features"), rows)
        return
    if len(result.info["tried"]) > 1:
        heads = ("features", "rounds", "loss", "accuracy")
        table("trees on (the lowest validation loss is kept)", heads, result.tried_rows())
    heads = ("family", "features used", "SHAP", "gain")
    table("importance", heads, result.family_rows())
    if result.importance["features"]:
        table("features", ("feature", "family", "mean |SHAP|"), result.feature_rows())
    title = f"{result.out}: {len(result.classes)} classes"
    table(title, ("split", "images", "accuracy"), result.accuracy_rows())
    if not quiet:
        note(f"features are kept in {result.features}; another fuse takes them with --features {result.features}")
        note(f"more: wbctool evaluate {result.out}")
