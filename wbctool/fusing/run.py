"""From runs and images to a fused run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbctool import __version__
from wbctool.console import loading, note, warn
from wbctool.errors import InputError, UsageProblem
from wbctool.fusing.options import FusionOptions
from wbctool.inputs.dataset import Dataset, gather
from wbctool.inputs.folders import read_inputs
from wbctool.pipeline.locks import locked
from wbctool.pipeline.output_folder import check_settings
from wbctool.pipeline.runner import lies_in, nothing_found
from wbctool.records import Record, preparation_of
from wbctool.records.selection import Selection, Tally
from wbctool.records.storage import read_json, write_json

if TYPE_CHECKING:
    from wbctool.fusing.sources import Network
    from wbctool.modeling.run_folder import Run


@dataclass(frozen=True)
class FusionOutput:
    """Where results are written.

    Attributes:
        out: the output folder.
        features: where features are kept for other fusions; None for a folder in `out`.
        overwrite: whether earlier results are replaced.
        quiet: whether progress and notes are left out.
    """

    out: Path
    features: Path | None = None
    overwrite: bool = False
    quiet: bool = False

    @classmethod
    def at(cls, out: str | Path, features: str | Path | None, overwrite: bool, quiet: bool) -> FusionOutput:
        """Take folders as people give them."""
        return cls(Path(out), Path(features) if features else None, overwrite, quiet)

    def __post_init__(self) -> None:
        for folder, option in ((self.out, "-o"), (self.features, "--features")):
            if folder and folder.exists() and not folder.is_dir():
                raise InputError(f"{option} {folder}: is a file; give a folder")

    @property
    def features_folder(self) -> Path:
        """Where features are kept."""
        return self.features or self.out / "features"


@dataclass(frozen=True)
class FusionResult:
    """A fused run folder.

    Attributes:
        output: the folders.
        classes: of the dataset.
        info: what `run.json` says; its `failures` are the images that could not be read.
        importance: what `importance.json` says.
        reused: whether it had been made before.
    """

    output: FusionOutput
    classes: tuple[str, ...]
    info: dict[str, Any]
    importance: dict[str, Any]
    reused: bool = False

    @property
    def failed(self) -> int:
        """Number of images that could not be read."""
        return len(self.info["failures"])

    def predictions(self) -> Iterator[Record]:
        """Read the predictions of validation and test images."""
        return read_inputs([str(self.output.out / "predictions.jsonl")], Selection(), Tally())


def fuse_runs(
    runs: Sequence[str | Path],
    inputs: Sequence[str],
    out: str | Path,
    options: FusionOptions | None = None,
    selection: Selection | None = None,
    *,
    features: str | Path | None = None,
    allow_synthetic: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    on_record: Callable[[Record], None] | None = None,
) -> FusionResult:
    """Fuse runs, and what cells measure, by gradient-boosted trees into a new run folder.

    Trees are grown on the training split. Validation decides when to stop, and which kinds of features help; test
    images are only predicted. Images whose records carry no split take those that the runs were trained with, or new
    ones. Features are kept on disk; the same call again reuses a finished folder.

    Args:
        runs: run folders; may be none with `options.morphology`.
        inputs: folders, `.jsonl` record files, or `-`, with a label for each image.
        out: the new run folder.
        options: what is fused, and how.
        selection: where labels and groups come from, and which classes are kept.
        features: where features are kept for other fusions; None for a folder in `out`.
        allow_synthetic: whether composites may be in validation and test.
        overwrite: whether the run is made again.
        quiet: whether progress and notes are left out.
        on_record: called with each prediction of a validation or test image.

    Raises:
        UsageProblem: the options do not fit together, or the folder was made with others.
        InputError: a run or the images cannot be used.
        DeviceError: memory does not suffice, or the GPU fails.
    """
    options, output = options or FusionOptions(), FusionOutput.at(out, features, overwrite, quiet)
    paths = [Path(run) for run in runs]
    records, _ = read_images(paths, inputs, output, options, selection or Selection(), refuse_damage=True)
    with loading(quiet):
        from wbctool.fusing.boosting import check_parameters
        from wbctool.fusing.sources import load_networks
        from wbctool.modeling.known import refuse_known, with_their_splits
    check_parameters(options.settings)
    loaded, networks, precision = load_networks(paths, options)
    options = options.model_copy(update={"precision": precision})
    dataset = gather(with_their_splits(records, paths, quiet), options.settings.seed, quiet, allow_synthetic)
    refuse_known(dataset, paths)
    _check(dataset, loaded, options)
    with locked(output.out):
        result = _fuse(dataset, loaded, networks, output, options)
    if result.reused and not quiet:
        note(f"{out}: was fused before; --overwrite fuses it again")
    if on_record:
        for record in result.predictions():
            on_record(record)
    return result


def read_images(
    runs: Sequence[Path],
    inputs: Sequence[str],
    output: FusionOutput,
    options: FusionOptions,
    selection: Selection,
    refuse_damage: bool = False,
) -> tuple[list[Record], Tally]:
    """Read the records of all inputs, and refuse what could not work or would destroy them.

    Raises:
        UsageProblem: there is nothing to compute, or an input would be overwritten.
        InputError: there are no images, or damaged lines among them that are not allowed.
    """
    if not inputs:
        given = " ".join(map(str, runs))
        raise UsageProblem(f"give images after the run folders: wbctool xgboost-fuse {given} cells/")
    if not runs and not options.morphology:
        raise UsageProblem("nothing to fuse: give a run folder before the images, or --morphology")
    out = output.out
    if any(out.resolve() == run.resolve() for run in runs):
        raise UsageProblem(f"-o {out}: is one of the runs; give another folder, so that nothing is lost")
    tally = Tally()
    records = list(read_inputs(inputs, selection, tally))
    if not records:
        raise InputError(nothing_found(inputs, tally))
    if refuse_damage:
        tally.refuse_damage()
    for record in records:
        if any(lies_in(record[key], out) for key in ("path", "mask") if isinstance(record.get(key), str)):
            raise UsageProblem(
                f"-o {out}: holds the input {record['path']}; give another folder, so that nothing is lost"
            )
    if not output.quiet:
        for line in tally.notes():
            note(line)
    return records, tally


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
    dataset: Dataset, runs: Sequence[Run], networks: Sequence[Network], output: FusionOutput, options: FusionOptions
) -> FusionResult:
    from wbctool.fusing.feature_table import compute_table
    from wbctool.fusing.fusion import Fusion
    from wbctool.fusing.saving import save_run
    from wbctool.modeling.run_folder import clear

    out = output.out
    used = [{"run": str(run.path), "digest": network.digest} for run, network in zip(runs, networks, strict=True)]
    info: dict[str, Any] = {"command": "xgboost-fuse", "version": __version__}
    info["settings"] = _settings(dataset, options, [network.digest for network in networks])
    if output.overwrite:
        clear(out)
    else:
        check_settings(out, "run.json", info)
    if (out / "model.json").exists():
        info, importance = (
            read_json(out / name, "fuse again with --overwrite") for name in ("run.json", "importance.json")
        )
        return FusionResult(output, dataset.classes, info, importance, reused=True)
    write_json(out / "run.json", {**info, "finished": False})
    table = compute_table(dataset.everything, networks, options, output.features_folder, output.quiet)
    fusion = Fusion(dataset, runs, table, options, output.quiet)
    for reason in table.failed.values():
        note(f"failed: {reason}")
    fitted = fusion.fit(out / "tuning.jsonl")
    info |= {"tried": fitted.tried, "counts": {split: len(rows) for split, rows in fusion.rows.items()}}
    info |= {"rounds": fitted.boosting.rounds, "failures": sorted(table.failed.values()), "runs": used}
    info["finished"] = True
    tuned = options.model_copy(update={"settings": fitted.options})
    importance = save_run(out, fusion, fitted, {**tuned.model_dump(), "runs": used}, info)
    return FusionResult(output, dataset.classes, info, importance)


def _settings(dataset: Dataset, options: FusionOptions, digests: Sequence[str]) -> dict[str, Any]:
    """Return what decides the result; a run folder is not reused with other settings."""
    from wbctool.device import pick_device

    settings = {**options.model_dump(exclude={"settings"}), **options.settings.model_dump(exclude={"jobs"})}
    settings |= {"device": pick_device(options.settings.device).type, "runs": digests}
    return {**settings, "images": dataset.digest(masks=options.morphology)}
