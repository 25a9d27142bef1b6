"""From runs and images to a fused run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbctool import __version__
from wbctool.console import loading, note, warn
from wbctool.errors import InputError, UsageProblem
from wbctool.fusing.options import FusionOptions
from wbctool.inputs.dataset import Dataset, gather
from wbctool.inputs.folders import read_inputs
from wbctool.inputs.protection import refuse_replacing
from wbctool.modeling.checks import PreparationCheck
from wbctool.pipeline.locks import locked
from wbctool.pipeline.output_folder import check_settings
from wbctool.pipeline.source import Source
from wbctool.pipeline.step import Execution
from wbctool.records import Record
from wbctool.records.selection import Selection
from wbctool.records.storage import read_json, write_json
from wbctool.records.tally import Tally

if TYPE_CHECKING:
    from wbctool.fusing.feature_table import Network
    from wbctool.modeling.run_folder import Run


@dataclass(frozen=True)
class FusionResult:
    """A fused run folder."""

    out: Path
    features: Path  # the folder where features are kept
    classes: tuple[str, ...]
    info: dict[str, Any] = field(default_factory=dict)  # as in `run.json`; `failures`: images that could not be read
    importance: dict[str, Any] = field(default_factory=dict)  # as in `importance.json`
    reused: bool = False  # whether the run had been made before

    @property
    def failed(self) -> int:
        """Number of images that could not be read."""
        return len(self.info["failures"])

    def predictions(self) -> Iterator[Record]:
        """Read the predictions of validation and test images."""
        return read_inputs([str(self.out / "predictions.jsonl")], Selection(), Tally())

    def accuracy_rows(self) -> list[tuple[str, ...]]:
        """Return split, images and accuracy."""
        images: Counter[str] = Counter()
        correct: Counter[str] = Counter()
        for record in self.predictions():
            images[record["split"]] += 1
            correct[record["split"]] += record["predicted"] == record["label"]
        splits = [split for split in ("val", "test") if images[split]]
        return [(split, f"{images[split]:,}", f"{correct[split] / images[split]:.3f}") for split in splits]

    def tried_rows(self) -> list[tuple[str, ...]]:
        """Return features, rounds, validation loss and accuracy of all trees that were grown."""
        return [
            (" + ".join(row["features"]), f"{row['rounds']:,}", f"{row['loss']:.4f}", f"{row['accuracy']:.3f}")
            for row in self.info["tried"]
        ]

    def family_rows(self) -> list[tuple[str, ...]]:
        """Return family, features used, fraction of SHAP, and of gain."""
        rows = []
        for row in self.importance["families"]:
            fractions = (row["shap_share"], row["gain_share"])
            percentages = ("–" if share is None else f"{share:.1%}" for share in fractions)
            rows.append((row["family"], f"{row['used']:,} of {row['features']:,}", *percentages))
        return rows

    def feature_rows(self) -> list[tuple[str, ...]]:
        """Return the ten most important features, their families and mean |SHAP value|."""
        return [(row["feature"], row["family"], f"{row['shap']:.3f}") for row in self.importance["features"][:10]]


def fuse_runs(
    runs: Sequence[Path],
    inputs: Sequence[str],
    out: Path,
    options: FusionOptions | None = None,
    *,
    features: Path | None = None,
    allow_synthetic: bool = False,
    selection: Selection | None = None,
    execution: Execution | None = None,
    on_record: Callable[[Record], None] | None = None,
) -> FusionResult:
    """Fuse runs, and what cells measure, by gradient-boosted trees into a new run folder.

    Trees are grown on the training split. Validation decides when to stop, and which kinds of features help; test
    images are only predicted. Records without splits take those that the runs were trained with, or new ones. The
    features of an image are kept on disk. A finished folder is reused.

    Args:
        runs: run folders; may be none with `options.morphology`.
        inputs: folders, `.jsonl` record files, or `-`, with a label for each image.
        out: the new run folder.
        options: what is fused, and how.
        features: where features are kept, for other fusions, too; None for a folder in `out`.
        allow_synthetic: whether composites may be in validation and test.
        selection: where labels and groups come from, and which classes are kept.
        execution: number of jobs; whether the run is made again, and whether progress is shown.
        on_record: called with each prediction of a validation or test image.

    Raises:
        UsageProblem: the options do not fit together, or the folder was made with others.
        InputError: a run or the images cannot be used.
        DeviceError: memory does not suffice, or the GPU fails.
    """
    execution = execution or Execution()
    options = (options or FusionOptions()).with_jobs(execution.jobs)
    records, source, folder = read_images(runs, inputs, out, options, features, selection)
    source.tally.refuse_damage()
    with loading(execution.quiet):
        from wbctool.fusing.boosting import check_parameters
        from wbctool.fusing.feature_table import load_networks
        from wbctool.modeling.checks import refuse_leakage, take_over_splits
    if not execution.quiet:
        source.print_notes()
    check_parameters(options.settings)
    networks, options = load_networks(runs, options)
    records = take_over_splits(records, runs, execution.quiet)
    dataset = gather(records, options.settings.seed, execution.quiet, allow_synthetic)
    refuse_leakage(dataset, runs)
    _check(dataset, [network.run for network in networks], options)
    result = FusionResult(out, folder, dataset.classes)
    with locked(out):
        result = _fuse(dataset, networks, result, options, execution)
    if result.reused and not execution.quiet:
        note(f"{out}: was fused before; --overwrite fuses it again")
    if on_record:
        for record in result.predictions():
            on_record(record)
    return result


def read_images(
    runs: Sequence[Path],
    inputs: Sequence[str],
    out: Path,
    options: FusionOptions,
    features: Path | None,
    selection: Selection | None,
) -> tuple[list[Record], Source, Path]:
    """Return the records of all inputs, their source, and the folder where features are kept.

    Nothing to compute, and outputs that are files or would replace an input, are refused.
    """
    for folder, option in ((out, "-o"), (features, "--features")):
        if folder and folder.exists() and not folder.is_dir():
            raise InputError(f"{option} {folder}: is a file; give a folder")
    if not inputs:
        names = " ".join(map(str, runs))
        raise UsageProblem(f"give images after the run folders: wbctool xgboost-fuse {names} cells/")
    source = Source(inputs, selection)  # names inputs that do not exist
    if not runs and not options.morphology:
        raise UsageProblem("nothing to fuse: give a run folder before the images, or --morphology")
    records = list(source)
    refuse_replacing("-o", out, [*runs, *inputs], records)
    return records, source, features or out / "features"


def _check(dataset: Dataset, runs: Sequence[Run], options: FusionOptions) -> None:
    """Refuse options that do not fit the runs and images, and warn of what is missing or differs."""
    if options.probabilities and not runs:
        raise UsageProblem("--probabilities: are those of runs; give a run folder before the images")
    for run in runs:
        if options.start == "runs" and run.classes != dataset.classes:
            raise InputError(
                f"{run.path}: knows {', '.join(run.classes)}; the images are {', '.join(dataset.classes)}: "
                "trees cannot start from its answer; give --start none, or --classes"
            )
    if options.morphology:
        with_mask = sum(isinstance(record.get("mask"), str) for record in dataset.everything)
        if not with_mask:
            raise InputError("--morphology: no record carries a mask; give the records of `wbctool segment` or `crop`")
        without = len(dataset.everything) - with_mask
        if without:
            warn(f"{without:,} images carry no mask: their morphology is missing (`wbctool segment` and `crop`)")
    check = PreparationCheck((str(run.path), run.info) for run in runs)
    for record in dataset.everything:
        check.add(record)
    for line in check.warnings():
        warn(line)


def _fuse(
    dataset: Dataset, networks: Sequence[Network], result: FusionResult, options: FusionOptions, execution: Execution
) -> FusionResult:
    """Fill in a result, unless its folder is finished."""
    from wbctool.device import pick_device
    from wbctool.fusing.feature_table import compute_table
    from wbctool.fusing.fusion import Fusion, save_run
    from wbctool.modeling.run_folder import clear

    out = result.out
    used = [{"run": str(network.run.path), "digest": network.digest} for network in networks]
    info: dict[str, Any] = {"command": "xgboost-fuse", "version": __version__}
    # what decides the result; a run folder is not reused with other settings
    settings = {**options.model_dump(exclude={"settings"}), **options.settings.model_dump(exclude={"jobs"})}
    settings |= {"device": pick_device(options.settings.device).type, "runs": [network.digest for network in networks]}
    info["settings"] = {**settings, "images": dataset.digest(masks=options.morphology)}
    if execution.overwrite:
        clear(out)
    else:
        check_settings(out, "run.json", info)
    if (out / "model.json").exists():
        files = (out / "run.json", out / "importance.json")
        info, importance = (read_json(file, "fuse again with --overwrite") for file in files)
        return replace(result, info=info, importance=importance, reused=True)
    write_json(out / "run.json", {**info, "finished": False})
    table = compute_table(dataset.everything, networks, options, result.features, execution.quiet)
    fusion = Fusion(dataset, table, options, execution.quiet)
    for reason in table.failed.values():
        note(f"failed: {reason}")
    fitted = fusion.fit(out / "tuning.jsonl")
    info |= {"tried": fitted.tried, "counts": {split: len(rows) for split, rows in fusion.rows.items()}}
    info |= {"rounds": fitted.boosting.rounds, "failures": sorted(table.failed.values()), "runs": used}
    info["finished"] = True
    tuned = options.model_copy(update={"settings": fitted.options})
    importance = save_run(out, fusion, fitted, {**tuned.model_dump(), "runs": used}, info)
    return replace(result, info=info, importance=importance)
