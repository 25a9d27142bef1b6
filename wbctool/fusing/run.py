"""From runs and images to a fused run folder."""

from __future__ import annotations

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
from wbctool.pipeline.locks import locked
from wbctool.pipeline.output_folder import check_settings
from wbctool.pipeline.source import nothing_found
from wbctool.pipeline.step import Execution
from wbctool.records import Record, preparation_of
from wbctool.records.selection import Selection
from wbctool.records.storage import read_json, write_json
from wbctool.records.tally import Tally

if TYPE_CHECKING:
    from wbctool.fusing.sources import Network
    from wbctool.modeling.run_folder import Run


@dataclass(frozen=True)
class FusionResult:
    """A fused run folder.

    Attributes:
        out: the folder.
        features: the folder where features are kept.
        classes: of the dataset.
        info: what `run.json` says; its `failures` are the images that could not be read.
        importance: what `importance.json` says.
        reused: whether the run had been made before.
    """

    out: Path
    features: Path
    classes: tuple[str, ...]
    info: dict[str, Any] = field(default_factory=dict)
    importance: dict[str, Any] = field(default_factory=dict)
    reused: bool = False

    @property
    def failed(self) -> int:
        """Number of images that could not be read."""
        return len(self.info["failures"])

    def predictions(self) -> Iterator[Record]:
        """Read the predictions of validation and test images."""
        return read_inputs([str(self.out / "predictions.jsonl")], Selection(), Tally())


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
    folder = features_folder(out, features)
    records, tally = read_images(runs, inputs, out, options, selection)
    tally.refuse_damage()
    with loading(execution.quiet):
        from wbctool.fusing.boosting import check_parameters
        from wbctool.fusing.sources import load_networks
        from wbctool.modeling.checks import refuse_leakage, take_over_splits
    note_all(tally, execution)
    check_parameters(options.settings)
    loaded, networks, options = load_networks(runs, options)
    records = take_over_splits(records, runs, execution.quiet)
    dataset = gather(records, options.settings.seed, execution.quiet, allow_synthetic)
    refuse_leakage(dataset, runs)
    _check(dataset, loaded, options)
    result = FusionResult(out, folder, dataset.classes)
    with locked(out):
        result = _fuse(dataset, loaded, networks, result, options, execution)
    if result.reused and not execution.quiet:
        note(f"{out}: was fused before; --overwrite fuses it again")
    if on_record:
        for record in result.predictions():
            on_record(record)
    return result


def features_folder(out: Path, features: Path | None) -> Path:
    """Return the folder where features are kept.

    Raises:
        InputError: an output is a file.
    """
    for folder, option in ((out, "-o"), (features, "--features")):
        if folder and folder.exists() and not folder.is_dir():
            raise InputError(f"{option} {folder}: is a file; give a folder")
    return features or out / "features"


def read_images(
    runs: Sequence[Path], inputs: Sequence[str], out: Path, options: FusionOptions, selection: Selection | None
) -> tuple[list[Record], Tally]:
    """Read the records of all inputs.

    Raises:
        UsageProblem: there is nothing to compute, or an input would be overwritten.
        InputError: there are no images.
    """
    if not inputs:
        names = " ".join(map(str, runs))
        raise UsageProblem(f"give images after the run folders: wbctool xgboost-fuse {names} cells/")
    if not runs and not options.morphology:
        raise UsageProblem("nothing to fuse: give a run folder before the images, or --morphology")
    tally = Tally()
    records = list(read_inputs(inputs, selection or Selection(), tally))
    if not records:
        raise InputError(nothing_found(inputs, tally))
    refuse_replacing("-o", out, [*runs, *inputs], records)
    return records, tally


def note_all(tally: Tally, execution: Execution) -> None:
    """Print what was left out of the inputs."""
    for line in [] if execution.quiet else tally.notes():
        note(line)


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
    for run in runs:
        other = sum(preparation_of(r) != run.info.get("preparation", {}) for r in dataset.everything)
        if other:
            warn(f"{other:,} images were prepared otherwise than those of {run.path} (see `wbctool info {run.path}`)")


def _fuse(
    dataset: Dataset,
    runs: Sequence[Run],
    networks: Sequence[Network],
    result: FusionResult,
    options: FusionOptions,
    execution: Execution,
) -> FusionResult:
    """Fill in a result, unless its folder is finished."""
    from wbctool.fusing.feature_table import compute_table
    from wbctool.fusing.fusion import Fusion
    from wbctool.fusing.saving import save_run
    from wbctool.modeling.run_folder import clear

    out = result.out
    used = [{"run": str(run.path), "digest": network.digest} for run, network in zip(runs, networks, strict=True)]
    info: dict[str, Any] = {"command": "xgboost-fuse", "version": __version__}
    info["settings"] = _settings(dataset, options, [network.digest for network in networks])
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
    fusion = Fusion(dataset, runs, table, options, execution.quiet)
    for reason in table.failed.values():
        note(f"failed: {reason}")
    fitted = fusion.fit(out / "tuning.jsonl")
    info |= {"tried": fitted.tried, "counts": {split: len(rows) for split, rows in fusion.rows.items()}}
    info |= {"rounds": fitted.boosting.rounds, "failures": sorted(table.failed.values()), "runs": used}
    info["finished"] = True
    tuned = options.model_copy(update={"settings": fitted.options})
    importance = save_run(out, fusion, fitted, {**tuned.model_dump(), "runs": used}, info)
    return replace(result, info=info, importance=importance)


def _settings(dataset: Dataset, options: FusionOptions, digests: Sequence[str]) -> dict[str, Any]:
    """Return what decides the result; a run folder is not reused with other settings."""
    from wbctool.device import pick_device

    settings = {**options.model_dump(exclude={"settings"}), **options.settings.model_dump(exclude={"jobs"})}
    settings |= {"device": pick_device(options.settings.device).type, "runs": digests}
    return {**settings, "images": dataset.digest(masks=options.morphology)}
