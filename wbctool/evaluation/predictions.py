"""From prediction records, of one run or several, to the arrays that metrics are computed from."""

from __future__ import annotations

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any

import numpy as np

from wbctool.errors import InputError, UsageProblem
from wbctool.evaluation.sources import check_prediction, check_split
from wbctool.records import ERROR, PREDICTION, SPLITS, Record, group_of
from wbctool.records.composites import ALLOW, is_composite
from wbctool.records.tally import Tally
from wbctool.statistics.counts import Scores
from wbctool.statistics.metrics import METRICS

_SUM_TOLERANCE = 0.01  # of 1, as other tools round their probabilities


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate of predictions.

    Attributes:
        split: `train`, `val`, `test` or `all`; None takes test where records carry splits, else all.
        baseline: of several runs, the name of the one that the others are tested against; None takes the best.
        threshold: confidence below which a prediction is uncertain.
        target_error: find that threshold, on validation where the records hold it, so that this error is left.
        audit: look for what tested images have in common with those of training.
        trained_on: a run folder, or records of the training images; None takes those of the evaluated run folder.
        columns: names of the metrics that tables show; none for the usual ones.
        by: key of the records, such as `site`; the images of each of its values are also evaluated alone.
        allow_synthetic: evaluate on composites, too.
    """

    split: str | None = None
    baseline: str | None = None
    threshold: float | None = None
    target_error: float | None = None
    audit: bool = False
    trained_on: str | None = None
    columns: tuple[str, ...] = ()
    by: str | None = None
    allow_synthetic: bool = False

    def check(self) -> None:
        """Check values, and which go together; a `UsageProblem` names the first option that cannot be used."""
        check_split(self.split)
        if self.threshold is not None and self.target_error is not None:
            raise UsageProblem("--threshold and --target-error: give one of them")
        if self.trained_on and not self.audit:
            raise UsageProblem("--trained-on goes with --audit")
        for name in self.columns:
            METRICS.get(name, "--columns")


@dataclass
class Predictions(Scores):
    """Labelled predictions of n images by one run.

    Attributes:
        classes: names in alphabetical order, which class indices refer to.
        groups: group numbers from 0, shape (n,).
        subgroups: numbers from 0 of the values that the records have under the key `by`, shape (n,); -1 without one.
        set_sizes: number of classes in the prediction set of each image, shape (n,); 0 without one.
        covered: whether that set holds the true class, bool, shape (n,).
        coverage: probability with which sets are to hold it; None where not all predictions state the same.
        temperature: that the logits of each image were divided by, 1 where they were not, shape (n,).
        split: of the images, or `all`.
        notes: what was left out, in words.
        composites: number of the images that are composites.
        validation: the run's predictions of validation images, where those of test are evaluated.
        records: of the images without their probabilities, where the audit needs them.
    """

    run: str
    classes: list[str]
    ids: list[str]
    paths: list[str]
    groups: np.ndarray
    group_names: list[str]
    subgroups: np.ndarray
    subgroup_names: list[str]
    set_sizes: np.ndarray
    covered: np.ndarray
    coverage: float | None
    temperature: np.ndarray
    split: str
    notes: list[str]
    composites: int = 0
    validation: Predictions | None = None
    records: list[Record] = field(default_factory=list)

    def subset(self, chosen: np.ndarray) -> Predictions:
        """Return the images of a mask, bool of shape (n,); groups are numbered from 0 again."""
        if chosen.all():
            return replace(self)
        numbers, groups = np.unique(self.groups[chosen], return_inverse=True)
        names = [self.group_names[number] for number in numbers]
        columns: dict[str, Any] = {"groups": groups, "group_names": names}
        for name in ("truth", "predicted", "probabilities", "temperature", "subgroups", "set_sizes", "covered"):
            columns[name] = getattr(self, name)[chosen]
        for name in ("ids", "paths", "records"):
            columns[name] = list(compress(getattr(self, name), chosen))
        return replace(self, **columns)


def collect_predictions(
    records: Iterable[Record], source: str, tally: Tally, options: EvaluationOptions
) -> list[Predictions]:
    """Collect the predictions to evaluate, run by run; runs without a name have that of the source.

    Raises:
        InputError: there is nothing to evaluate, there are composites to test on, or a record is no valid prediction.
    """
    runs: defaultdict[str, _Columns] = defaultdict(_Columns)
    left_out: Counter[str] = Counter()
    first: dict[str, str] = {}
    for record in records:
        if record["schema"] == ERROR:
            reason = "error records"
        elif record["schema"] == PREDICTION and record.get("label") is None:
            reason = "predictions without a label"
        else:
            check_prediction(record, tally.location or source)
            runs[record.get("run") or source].add(record, tally, options)
            continue
        left_out[reason] += 1
        first.setdefault(reason, tally.location)
    notes = [f"{count:,} {reason} (first: {first[reason]})" for reason, count in left_out.items()]
    if not runs:
        reasons = "; ".join([*notes, *tally.notes()]).replace("warning: ", "")
        raise InputError(f"{source}: no labelled predictions to evaluate" + (f" ({reasons})" if reasons else ""))
    return [_evaluated(columns.predictions(run, notes), columns, source, options) for run, columns in runs.items()]


class _Columns:
    """The records of one run, column by column, as a million of them must fit into memory.

    Classes, labels and groups are numbered in the order in which they come. `probabilities` and their `class_columns`
    hold one row after another, of `widths`.
    """

    def __init__(self) -> None:
        self.class_numbers: dict[str, int] = {}
        self.label_numbers: dict[str, int] = {}
        self.group_numbers: dict[str, int] = {}
        self.subgroup_numbers: dict[str, int] = {}
        self.lines_of_ids: defaultdict[str | None, dict[str, int]] = defaultdict(dict)  # of each split
        self.ids: list[str] = []
        self.paths: list[str] = []
        self.records: list[Record] = []
        self.probabilities, self.temperatures = array("d"), array("d")
        self.class_columns, self.widths, self.predicted = array("l"), array("l"), array("l")
        self.labels, self.groups, self.splits, self.lines = array("l"), array("l"), array("l"), array("l")
        self.subgroups = array("l")  # filled with the option `by` only
        # of records with a prediction set: the number of the record, that of classes, and whether the label is one
        self.set_rows, self.set_sizes, self.covered = array("l"), array("l"), bytearray()
        self.coverages: set[float] = set()
        self.synthetic = bytearray()

    def add(self, record: Record, tally: Tally, options: EvaluationOptions) -> None:
        """Append a labelled prediction whose id is new in its split, and whose probabilities sum to 1."""
        lines = self.lines_of_ids[record.get("split")]
        count = len(lines)
        line = lines.setdefault(record["id"], tally.line)
        if len(lines) == count:
            raise InputError(f"{tally.location}: {record['id']} is in line {line}, too; keep one of them")
        probabilities = record["probabilities"]
        total = sum(probabilities.values())
        if abs(total - 1) > _SUM_TOLERANCE:
            raise InputError(f"{tally.location}: {record['id']}: its probabilities sum to {total:.4g}, not to 1")
        self.ids.append(record["id"])
        self.paths.append(record["path"])
        self.probabilities.extend(probabilities.values())
        self.class_columns.extend([self.class_numbers.setdefault(n, len(self.class_numbers)) for n in probabilities])
        self.widths.append(len(probabilities))
        self.labels.append(self.label_numbers.setdefault(record["label"], len(self.label_numbers)))
        self.predicted.append(self.class_numbers[record["predicted"]])
        self.groups.append(self.group_numbers.setdefault(group_of(record), len(self.group_numbers)))
        if options.by:
            self.subgroups.append(self._subgroup(record.get(options.by)))
        if record.get("prediction_set") and record.get("coverage"):
            self.set_rows.append(len(self.ids) - 1)
            self.set_sizes.append(len(record["prediction_set"]))
            self.covered.append(record["label"] in record["prediction_set"])
            self.coverages.add(record["coverage"])
        self.splits.append(SPLITS.index(record["split"]) if record.get("split") else -1)
        self.temperatures.append(record.get("temperature") or 1.0)
        self.lines.append(tally.line)
        self.synthetic.append(is_composite(record))
        if options.audit:
            self.records.append({key: value for key, value in record.items() if key != "probabilities"})

    def _subgroup(self, value: Any) -> int:
        """The number of a value; -1 where the record has none."""
        if value is None:
            return -1
        name = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return self.subgroup_numbers.setdefault(name, len(self.subgroup_numbers))

    def predictions(self, run: str, notes: list[str]) -> Predictions:
        """Return all of them as arrays; the truth is -1 where the model does not know the label."""
        classes = sorted(self.class_numbers)
        index_of = {name: index for index, name in enumerate(classes)}
        class_of_number = np.array([index_of[name] for name in self.class_numbers])
        probabilities = np.zeros((len(self.ids), len(classes)))
        rows = np.repeat(np.arange(len(self.ids)), self.widths)
        probabilities[rows, class_of_number[np.array(self.class_columns)]] = self.probabilities
        count = len(self.ids)
        set_sizes, covered = np.zeros(count, int), np.zeros(count, bool)
        set_sizes[np.array(self.set_rows, int)] = self.set_sizes
        covered[np.array(self.set_rows, int)] = np.frombuffer(self.covered, bool)
        complete = len(self.coverages) == 1 and len(self.set_rows) == count
        return Predictions(
            run=run,
            classes=classes,
            ids=self.ids,
            paths=self.paths,
            truth=np.array([index_of.get(name, -1) for name in self.label_numbers])[np.array(self.labels)],
            predicted=class_of_number[np.array(self.predicted)],
            probabilities=probabilities,
            groups=np.array(self.groups),
            group_names=list(self.group_numbers),
            subgroups=np.array(self.subgroups) if self.subgroups else np.full(count, -1),
            subgroup_names=list(self.subgroup_numbers),
            set_sizes=set_sizes,
            covered=covered,
            coverage=next(iter(self.coverages)) if complete else None,
            temperature=np.array(self.temperatures),
            split="all",
            notes=notes,
            records=self.records,
        )


def _evaluated(whole: Predictions, columns: _Columns, source: str, options: EvaluationOptions) -> Predictions:
    """Return the labelled predictions of the split, with those of validation beside those of test."""
    splits = np.array(columns.splits)
    split, chosen = _split_mask(splits, options.split, source)
    chosen, note = _without_unknown(whole.truth, chosen, columns, source)
    validation = (splits == SPLITS.index("val")) & (whole.truth >= 0)
    composite = np.frombuffer(columns.synthetic, bool)
    tested = composite & (validation | chosen if split == "test" else chosen & (split != "train"))
    if tested.any() and not options.allow_synthetic:
        first = whole.ids[int(np.argmax(tested))]
        reason = f"{first} is a composite ({tested.sum():,} in all); metrics on composites say nothing of real images"
        raise InputError(f"{source}: {reason}: leave them out, or add {ALLOW}")
    count = int((composite & chosen).sum())
    evaluated = replace(whole.subset(chosen), split=split, notes=[*whole.notes, *note], composites=count)
    if split == "test" and validation.any():
        evaluated.validation = replace(whole.subset(validation), split="val")
    return evaluated


def _split_mask(splits: np.ndarray, split: str | None, source: str) -> tuple[str, np.ndarray]:
    """Return the split to evaluate, and which images are of it."""
    present = set(np.unique(splits).tolist()) - {-1}
    if split == "all" or (split is None and not present):
        return "all", np.ones(len(splits), bool)
    wanted = split or "test"
    chosen = splits == SPLITS.index(wanted)
    if not chosen.any():
        names = ", ".join(SPLITS[number] for number in sorted(present)) or "none"
        raise InputError(f"{source}: no {wanted} predictions (splits found: {names}); give --split val or --split all")
    return wanted, chosen


def _without_unknown(
    truth: np.ndarray, chosen: np.ndarray, columns: _Columns, source: str
) -> tuple[np.ndarray, list[str]]:
    """Leave out images whose label the model does not know; the mask without them, and a note on them."""
    unknown = chosen & (truth < 0)
    if not unknown.any():
        return chosen, []
    labels = list(columns.label_numbers)
    counts = Counter(labels[number] for number in np.array(columns.labels)[unknown])
    names = ", ".join(f"{label} ({count:,})" for label, count in sorted(counts.items()))
    if unknown.sum() == chosen.sum():
        raise InputError(f"{source}: the model knows none of the labels: {names}; rename with --map old=new")
    line = columns.lines[int(np.argmax(unknown))]
    note = f"{unknown.sum():,} images of classes the model does not know: {names} (first: line {line})"
    return chosen & ~unknown, [note]
