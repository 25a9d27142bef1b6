"""From prediction records, of one run or many, to the arrays that figures are made of."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from wbctool.errors import InputError
from wbctool.records import ERROR, PREDICTION, SPLITS, Record, group_of
from wbctool.records.composites import ALLOW, is_composite
from wbctool.records.tally import Tally

_SUM_WITHIN = 0.01  # of 1, as other tools round their probabilities


@dataclass
class Predictions:
    """Labelled predictions of one run.

    Attributes:
        run: its name.
        classes: class names, in alphabetical order.
        ids, paths: of the images, (n,) each.
        truth, predicted: class indices, shape (n,).
        probabilities: shape (n, classes), float64.
        groups: group numbers from 0, shape (n,).
        group_names: their names.
        temperature: by which each image's scores were divided, 1 for those that were not, shape (n,).
        split: the split they are of, or `all`.
        notes: what was left out, in words.
        composites: how many of the images are composites.
        validation: the run's predictions of validation images, where others are evaluated.
        records: what else the records say of each image, where that was asked for.
    """

    run: str
    classes: list[str]
    ids: list[str]
    paths: list[str]
    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray
    group_names: list[str]
    temperature: np.ndarray
    split: str
    notes: list[str]
    composites: int = 0
    validation: Predictions | None = None
    records: list[Record] = field(default_factory=list)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the predicted class, shape (n,)."""
        return self.probabilities[np.arange(len(self.predicted)), self.predicted]

    @property
    def right(self) -> np.ndarray:
        """Whether each prediction is the truth, shape (n,), bool."""
        return self.truth == self.predicted

    def at(self, rows: np.ndarray) -> Predictions:
        """Some of the images, by a mask (n,) or row numbers; groups are numbered anew."""
        rows = np.arange(len(self.ids))[rows]
        met, groups = np.unique(self.groups[rows], return_inverse=True)
        return replace(
            self,
            ids=[self.ids[row] for row in rows],
            paths=[self.paths[row] for row in rows],
            truth=self.truth[rows],
            predicted=self.predicted[rows],
            probabilities=self.probabilities[rows],
            groups=groups,
            group_names=[self.group_names[number] for number in met],
            temperature=self.temperature[rows],
            records=[self.records[row] for row in rows] if self.records else [],
        )


@dataclass
class _Left:
    """What is left out: how much of each kind, and where it was first met."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def out(self, what: str, place: str) -> None:
        self.counts[what] += 1
        self.first.setdefault(what, place)

    def lines(self) -> list[str]:
        return [f"{count:,} {what} (first: {self.first[what]})" for what, count in self.counts.items()]


def _ints() -> array[int]:
    return array("l")


def _floats() -> array[float]:
    return array("d")


@dataclass
class _Rows:
    """The records of one run as they come in, column by column."""

    names: dict[str, int] = field(default_factory=dict)  # of the classes that have probabilities
    labels: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    met: dict[str | None, dict[str, int]] = field(default_factory=dict)  # of each split, in which line an id was
    ids: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    shares: array[float] = field(default_factory=_floats)  # probabilities, row after row
    columns: array[int] = field(default_factory=_ints)  # their classes
    widths: array[int] = field(default_factory=_ints)  # how many of each row
    label: array[int] = field(default_factory=_ints)
    predicted: array[int] = field(default_factory=_ints)
    group: array[int] = field(default_factory=_ints)
    split: array[int] = field(default_factory=_ints)
    temperature: array[float] = field(default_factory=_floats)
    lines: array[int] = field(default_factory=_ints)
    synthetic: bytearray = field(default_factory=bytearray)
    records: list[Record] = field(default_factory=list)

    def add(self, record: Record, tally: Tally, keep: bool) -> None:
        met = self.met.setdefault(record.get("split"), {})
        before = len(met)
        line = met.setdefault(record["id"], tally.line)
        if len(met) == before:
            raise InputError(f"{tally.location}: {record['id']} is in line {line}, too; keep one of them")
        shares = record["probabilities"]
        total = sum(shares.values())
        if abs(total - 1) > _SUM_WITHIN:
            raise InputError(f"{tally.location}: {record['id']}: its probabilities sum to {total:.4g}, not to 1")
        if record["predicted"] not in shares:
            raise InputError(f"{tally.location}: {record['id']}: the predicted class has no probability; predict again")
        self.ids.append(record["id"])
        self.paths.append(record["path"])
        self.shares.extend(shares.values())
        self.columns.extend([self.names.setdefault(name, len(self.names)) for name in shares])
        self.widths.append(len(shares))
        self.label.append(self.labels.setdefault(record["label"], len(self.labels)))
        self.predicted.append(self.names[record["predicted"]])
        self.group.append(self.groups.setdefault(group_of(record), len(self.groups)))
        self.split.append(SPLITS.index(record["split"]) if record.get("split") else -1)
        self.temperature.append(record.get("temperature") or 1.0)
        self.lines.append(tally.line)
        self.synthetic.append(is_composite(record))
        if keep:
            self.records.append({key: value for key, value in record.items() if key != "probabilities"})


def collect(
    records: Iterable[Record],
    split: str | None,
    where: str,
    tally: Tally,
    keep: bool = False,
    allow_synthetic: bool = False,
) -> list[Predictions]:
    """Choose the predictions that are evaluated, run by run.

    Args:
        records: prediction and error records.
        split: `train`, `val`, `test` or `all`; None takes test where records carry splits, else all.
        where: the input's name, for errors and for runs without one.
        tally: of the reading, which knows the line that a record came from.
        keep: also keep the records.
        allow_synthetic: take composites of validation and test, too.

    Raises:
        InputError: there is nothing to evaluate, there are composites to test on, or a record is no prediction or
            not a sound one.
    """
    runs: defaultdict[str, _Rows] = defaultdict(_Rows)
    left = _Left()
    for record in records:
        if record["schema"] == ERROR:
            left.out("error records", tally.location)
        elif record["schema"] != PREDICTION:
            raise InputError(
                f"{tally.location or where}: {record['id']} is a {record['schema']} record; "
                "give what `wbctool predict` prints"
            )
        elif record.get("label") is None:
            left.out("predictions without a label", tally.location)
        else:
            runs[record.get("run") or where].add(record, tally, keep)
    if not runs:
        reason = "; ".join([*left.lines(), *tally.notes()]).replace("warning: ", "")
        raise InputError(f"{where}: no labelled predictions to evaluate" + (f" ({reason})" if reason else ""))
    return [_chosen(run, rows, split, where, left.lines(), allow_synthetic) for run, rows in runs.items()]


def _chosen(
    run: str, rows: _Rows, split: str | None, where: str, notes: list[str], allow_synthetic: bool
) -> Predictions:
    classes = sorted(rows.names)
    place = np.empty(len(classes), np.int64)
    place[[rows.names[name] for name in classes]] = np.arange(len(classes))
    known = {name: number for number, name in enumerate(classes)}
    truth = np.array([known.get(name, -1) for name in rows.labels])[np.array(rows.label)]
    name, keep = _of_split(np.array(rows.split), split, where)
    unknown = keep & (truth < 0)
    if unknown.any():
        labels = list(rows.labels)
        counts = Counter(labels[number] for number in np.array(rows.label)[unknown])
        named = ", ".join(f"{label} ({count:,})" for label, count in sorted(counts.items()))
        keep &= ~unknown
        if not keep.any():
            raise InputError(f"{where}: the model knows none of the labels: {named}; rename with --map old=new")
        line = rows.lines[int(np.argmax(unknown))]
        notes = [*notes, f"{unknown.sum():,} images of classes the model does not know: {named} (first: line {line})"]
    held_back = (np.array(rows.split) == SPLITS.index("val")) & (truth >= 0)
    composite = np.frombuffer(rows.synthetic, bool)
    tested = composite & (held_back | keep if name == "test" else keep & (name != "train"))
    if tested.any() and not allow_synthetic:
        first = rows.ids[int(np.argmax(tested))]
        raise InputError(
            f"{where}: {first} is a composite ({tested.sum():,} in all); figures of composites say nothing of real "
            f"images: leave them out, or add {ALLOW}"
        )
    probabilities = np.zeros((len(rows.ids), len(classes)))
    probabilities[np.repeat(np.arange(len(rows.ids)), rows.widths), place[np.array(rows.columns)]] = rows.shares
    whole = Predictions(
        run=run,
        classes=classes,
        ids=rows.ids,
        paths=rows.paths,
        truth=truth,
        predicted=place[np.array(rows.predicted)],
        probabilities=probabilities,
        groups=np.array(rows.group),
        group_names=list(rows.groups),
        temperature=np.array(rows.temperature),
        split=name,
        notes=notes,
        records=rows.records,
    )
    chosen = replace(whole.at(keep), composites=int((composite & keep).sum()))
    if name == "test" and held_back.any():
        chosen.validation = replace(whole.at(held_back), split="val")
    return chosen


def _of_split(splits: np.ndarray, split: str | None, where: str) -> tuple[str, np.ndarray]:
    present = set(np.unique(splits).tolist()) - {-1}
    if split == "all" or (split is None and not present):
        return "all", np.ones(len(splits), bool)
    wanted = split or "test"
    keep = splits == SPLITS.index(wanted)
    if not keep.any():
        found = ", ".join(SPLITS[number] for number in sorted(present)) or "none"
        raise InputError(f"{where}: no {wanted} predictions (splits found: {found}); give --split val or --split all")
    return wanted, keep
