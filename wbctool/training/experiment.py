"""`train_run`: one training, or several on new splits, from images to run folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wbctool.console import loading, note
from wbctool.errors import UsageProblem
from wbctool.inputs.dataset import gather
from wbctool.inputs.folders import read_inputs
from wbctool.inputs.protection import refuse_replacing
from wbctool.modeling.checks import refuse_leakage, take_over_splits
from wbctool.records import ERROR, Record
from wbctool.records.selection import Selection
from wbctool.records.splits import add_folds, add_splits, parse_ratio
from wbctool.records.tally import Tally
from wbctool.training.recipe import RATIO, Recipe, TrainingOptions, TrainingPlan
from wbctool.training.recipe_files import choose_recipe

VALIDATION = 0.1  # fraction of the training images that validates, where the ratio of repeats has no val


@dataclass(frozen=True)
class TrainedRun:
    """A finished run folder.

    Attributes:
        path: the folder.
        class_names: in the order of the outputs.
        images: how many of each split, train, val and test.
        failures: why images could not be read.
        done_before: whether an earlier call trained it.
    """

    path: Path
    class_names: tuple[str, ...]
    images: dict[str, int]
    failures: list[str]
    done_before: bool

    def predictions(self) -> Iterator[Record]:
        """Yield the prediction records of validation and test images."""
        return read_inputs([str(self.path / "predictions.jsonl")], Selection(), Tally())

    def accuracy(self) -> dict[str, float]:
        """Return the accuracy on validation and test images, where there are such."""
        total: Counter[str] = Counter()
        correct: Counter[str] = Counter()
        for record in self.predictions():
            total[record["split"]] += 1
            correct[record["split"]] += record["predicted"] == record["label"]
        return {split: correct[split] / count for split, count in total.items()}


def train_run(
    inputs: Sequence[str | Path],
    out: str | Path,
    recipe: Recipe | None = None,
    plan: TrainingPlan = TrainingPlan(),
    selection: Selection = Selection(),
    options: TrainingOptions = TrainingOptions(),
    allow_synthetic: bool = False,
    on_run: Callable[[TrainedRun], None] | None = None,
) -> list[TrainedRun]:
    """Train a classifier into a run folder, as `wbctool train` does.

    It fits on the train split and stops on val; without splits it makes its own, 80/20. The same call resumes one that
    was interrupted, and does not train a finished run again. Notes and progress go to stderr.

    Args:
        inputs: folders, .jsonl record files, or `-` for records on stdin; for an ensemble, run folders, too.
        out: the run folder, or with new splits the folder of several.
        recipe: what is chosen; see `choose_recipe`. By default `best`.
        plan: a probe, an ensemble of the run folders among the inputs, cross-validation, or repeats.
        selection: labels, groups and classes.
        options: the means, such as the device.
        allow_synthetic: accept composites in validation and test.
        on_run: called after each run; in several processes, in the first only.

    Returns:
        The run, or a run for each new split.

    Raises:
        UsageProblem: arguments that exclude each other.
        InputError: images or run folders that cannot be used.
        DeviceError: a missing GPU, or too little memory.
    """
    options = options.model_copy(update={"quiet": options.quiet or not is_main_process()})
    recipe = recipe or choose_recipe()
    members = tuple(Path(name) for name in inputs if (Path(name) / "model.json").is_file())
    images = [str(name) for name in inputs if Path(name) not in members]
    _check_members(plan, members, images)
    fractions = parse_ratio(plan.ratio or RATIO)
    records = _read(images, selection, members, options.quiet)
    refuse_replacing("-o", Path(out), inputs, records)
    datasets = [
        (name, seed, gather(split_records, seed, options.quiet, allow_synthetic))
        for name, seed, split_records in _split_anew(records, plan, fractions, recipe.seed)
    ]
    for _, _, dataset in datasets:
        refuse_leakage(dataset, members)
    with loading(options.quiet):
        from wbctool.training.processes import Processes
        from wbctool.training.run import Training
    runs = []
    with Processes(options.device) as processes:
        for name, seed, dataset in datasets:
            path = Path(out) / name
            if name and not options.quiet:
                note(f"{path}:")
            training = Training(dataset, path, recipe.replaced(seed=seed), plan, members, options, processes)
            info = training.run()
            if info["done_before"] and not options.quiet:
                note(f"{path}: was trained before; --overwrite trains it again")
            counts = {split: len(records) for split, records in dataset.splits.items()}
            runs.append(TrainedRun(path, dataset.classes, counts, info["failures"], info["done_before"]))
            if on_run and processes.is_main:
                on_run(runs[-1])
    return runs


def is_main_process() -> bool:
    """Return whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _check_members(plan: TrainingPlan, members: Sequence[Path], images: Sequence[str]) -> None:
    if not images:
        raise UsageProblem(f"{members[0]}: is a run folder; give images, too")
    if plan.ensemble and len(members) < 2:
        raise UsageProblem("--ensemble: give two run folders or more before the images")
    if members and not plan.ensemble:
        raise UsageProblem(f"{members[0]} is a run folder; --ensemble average or cbam makes one of several")


def _read(images: Sequence[str], selection: Selection, members: Sequence[Path], quiet: bool) -> list[Record]:
    """The records of the images; if they have no splits, with those of the members."""
    tally = Tally()
    records = list(read_inputs(images, selection, tally))
    tally.refuse_damage()
    if not quiet:
        for line in tally.notes():
            note(line)
    return take_over_splits(records, members, quiet) if members else records


def _split_anew(
    records: list[Record], plan: TrainingPlan, fractions: dict[str, float], seed: int
) -> Iterator[tuple[str, int, list[Record]]]:
    """The name, seed and records of each training; a single one has no name, and the splits of the records."""
    if plan.folds is None and plan.repeats is None:
        yield "", seed, records
    labelled = [record for record in records if record["schema"] != ERROR and record.get("label") is not None]
    for fold in range(1, (plan.folds or 0) + 1):
        yield f"fold-{fold}", seed, add_folds(labelled, plan.folds or 0, fold, seed)
    if "val" not in fractions:
        train = fractions["train"]
        fractions = {"train": (1 - VALIDATION) * train, "val": VALIDATION * train, "test": fractions["test"]}
    for number in range(plan.repeats or 0):
        yield f"repeat-{number + 1}", seed + number, add_splits(labelled, fractions, seed + number)
