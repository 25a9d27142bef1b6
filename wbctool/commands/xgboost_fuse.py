"""`wbctool xgboost-fuse`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.options import (
    AllowSynthetic,
    Device,
    Jobs,
    Json,
    Overwrite,
    Precision,
    Quiet,
    Seed,
    SelectionOptions,
    SkipBad,
    new_app,
    parse_pairs,
    with_options,
)

if TYPE_CHECKING:
    from wbctool.fusing.run import Choices, Place
    from wbctool.records import Record

app = new_app()
_TREES = "Trees"


@dataclass(frozen=True)
class FeatureOptions:
    """What trees see."""

    morphology: Annotated[bool, typer.Option("--morphology", help="Also what each cell measures, by its mask.")] = False
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also the runs' probabilities as features.")
    ] = False
    start: Annotated[
        str, typer.Option(metavar="runs|none", help="Mend the runs' answer, or find one from nothing.")
    ] = "runs"
    all_features: Annotated[
        bool, typer.Option("--all-features", help="Use all of these, whether validation gains or not.")
    ] = False
    features: Annotated[Path | None, typer.Option(metavar="DIR", help="Where features are kept. (OUT/features)")] = None
    features_only: Annotated[
        bool, typer.Option("--features-only", help="Write features.npz and records, no trees.")
    ] = False


@dataclass(frozen=True)
class TreeOptions:
    """How trees are grown."""

    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="At most.", rich_help_panel=_TREES)] = 2000
    patience: Annotated[
        int, typer.Option(min=1, metavar="N", help="Rounds without a gain on validation.", rich_help_panel=_TREES)
    ] = 50
    class_weights: Annotated[
        str, typer.Option(metavar="balanced|none", help="In training.", rich_help_panel=_TREES)
    ] = "balanced"
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="XGBoost's: max_depth=3, …", rich_help_panel=_TREES),
    ] = None
    tune: Annotated[
        int, typer.Option(min=0, metavar="N", help="Try N settings by cross-validation.", rich_help_panel=_TREES)
    ] = 0
    seed: Seed = 0


@app.command(
    epilog="Example:  wbctool xgboost-fuse runs/a runs/b cells/ -o runs/fused --morphology\n\n"
    "Then:  wbctool predict runs/fused cells/ | wbctool evaluate -"
)
@with_options
def xgboost_fuse(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="RUN... IN...", help="Run folders, then folders, .jsonl record files, or -."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The fused run folder.")],
    feature_options: FeatureOptions,
    tree_options: TreeOptions,
    selection: SelectionOptions,
    allow_synthetic: AllowSynthetic = False,
    device: Device = "auto",
    precision: Precision = "auto",
    jobs: Jobs = 0,
    overwrite: Overwrite = False,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Fuse deep features and morphology by gradient-boosted trees; the result is a run folder."""
    from wbctool.console import loading, note
    from wbctool.errors import DONE, SOME_FAILED, InputError, UsageProblem
    from wbctool.inputs.folders import read_inputs
    from wbctool.pipeline.output_folder import lies_in
    from wbctool.pipeline.source import nothing_found
    from wbctool.records.tally import Tally

    runs = [Path(given) for given in arguments if (Path(given) / "model.json").is_file()]
    images = [given for given in arguments if Path(given) not in runs]
    if not images:
        raise UsageProblem(f"give images after the run folders: wbctool xgboost-fuse {' '.join(arguments)} cells/")
    if not runs and not feature_options.morphology:
        raise UsageProblem("nothing to fuse: give a run folder before the images, or --morphology")
    if any(out.resolve() == run.resolve() for run in runs):
        raise UsageProblem(f"-o {out}: is one of the runs; give another folder, so that nothing is lost")
    if feature_options.features_only and tree_options != TreeOptions():
        raise UsageProblem("--features-only: grows no trees; leave their options out")
    tally = Tally()
    records = list(read_inputs(images, selection.selection(), tally))
    if not records:
        raise InputError(nothing_found(images, tally))
    if not feature_options.features_only:
        tally.refuse_damage()
    for record in records:
        if any(lies_in(record[key], out) for key in ("path", "mask") if isinstance(record.get(key), str)):
            raise UsageProblem(
                f"-o {out}: holds the input {record['path']}; give another folder, so that nothing is lost"
            )
    if not quiet:
        for line in tally.notes():
            note(line)

    with loading(quiet):
        from wbctool.fusing.boosting import Settings, check
        from wbctool.fusing.run import Choices, Place

    settings = Settings(
        rounds=tree_options.rounds,
        patience=tree_options.patience,
        class_weights=tree_options.class_weights,
        seed=tree_options.seed,
        device=device,
        jobs=jobs,
        parameters=parse_pairs(tree_options.set_ or [], "--set"),
    )
    check(settings)
    options = feature_options
    choices = Choices(
        *(options.probabilities, options.morphology, options.start, options.all_features),
        *(tree_options.tune, precision, settings),
    )
    place = Place(out, options.features, jobs, overwrite, quiet)
    if options.features_only:
        failed = _features_only(records, runs, images, choices, place, json) + tally.counts["damaged"]
    else:
        failed = _fuse(records, runs, choices, place, allow_synthetic, json)
    raise typer.Exit(SOME_FAILED if failed and not skip_bad else DONE)


def _fuse(
    records: list[Record], runs: list[Path], choices: Choices, place: Place, allow_synthetic: bool, json: bool
) -> int:
    """The number of images that failed."""
    from wbctool.console import emit, note, records_wanted, table
    from wbctool.device import pick_device
    from wbctool.fusing.importance import family_rows, feature_rows
    from wbctool.fusing.run import fuse
    from wbctool.inputs.dataset import gather
    from wbctool.inputs.folders import read_inputs
    from wbctool.modeling.leakage import refuse_leakage, take_over_splits
    from wbctool.modeling.run_folder import load
    from wbctool.records.selection import Selection
    from wbctool.records.tally import Tally

    device = pick_device(choices.settings.device)
    loaded = [load(path, device) for path in runs]
    dataset = gather(take_over_splits(records, runs, place.quiet), choices.settings.seed, place.quiet, allow_synthetic)
    refuse_leakage(dataset, runs)
    done = fuse(dataset, loaded, choices, place)
    if done["done_before"] and not place.quiet:
        note(f"{place.out}: was fused before; --overwrite fuses it anew")
    predictions = read_inputs([str(place.out / "predictions.jsonl")], Selection(), Tally())
    if records_wanted(json):
        for record in predictions:
            emit(record)
        return len(done["failures"])
    made = list(predictions)
    rows = []
    for name in ("val", "test"):
        own = [record for record in made if record["split"] == name]
        if own:
            right = sum(record["predicted"] == record["label"] for record in own) / len(own)
            rows.append((name, f"{len(own):,}", f"{right:.3f}"))
    if len(done["tried"]) > 1:
        tried = [
            (" + ".join(one["features"]), f"{one['rounds']:,}", f"{one['loss']:.4f}", f"{one['accuracy']:.3f}")
            for one in done["tried"]
        ]
        table("trees on (least validation loss is kept)", ("features", "rounds", "loss", "accuracy"), tried)
    found = done["importance"]
    table("what decides", ("family", "features used", "SHAP", "gain"), family_rows(found))
    if found["features"]:
        table("features", ("feature", "family", "mean |SHAP|"), feature_rows(found))
    table(f"{place.out}: {len(dataset.classes)} classes", ("split", "images", "accuracy"), rows)
    if not place.quiet:
        note(f"features are kept in {place.kept}; another fuse takes them with --features {place.kept}")
        note(f"more: wbctool evaluate {place.out}")
    return len(done["failures"])


def _features_only(
    records: list[Record], runs: list[Path], images: list[str], choices: Choices, place: Place, json: bool
) -> int:
    """The number of images that failed."""
    from wbctool.console import emit, note, records_wanted, table
    from wbctool.device import pick_device
    from wbctool.fusing.features import write_features
    from wbctool.modeling.run_folder import load
    from wbctool.pipeline.source import names_of
    from wbctool.records import ERROR

    asked = {record["id"] for record in records if record["schema"] != ERROR}
    device = pick_device(choices.settings.device)
    made, families, failed = write_features(
        records, [load(path, device) for path in runs], choices, place, names_of(images)
    )
    if records_wanted(json):
        for record in made:
            emit(record)
    else:
        rows = [(family, f"{count:,}") for family, count in families.items()]
        table(f"{place.out / 'features.npz'}: {len(made) - failed:,} images", ("family", "features"), rows)
    if failed and not place.quiet:
        for record in made:
            if record["schema"] == ERROR and record["id"] in asked:
                note(f"failed: {record['error']}")
        note(f"{failed:,} inputs failed; {place.out} holds an error record for each")
    return failed
