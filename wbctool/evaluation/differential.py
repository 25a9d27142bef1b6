"""The differential count: the fractions of the classes among the cells of each slide or patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from wbctool.console import note
from wbctool.errors import InputError, UsageProblem
from wbctool.evaluation.document import Block, Document, Paragraph, Section, Table, exact_text
from wbctool.evaluation.sources import check_prediction, note_selection, predictions_file, reading
from wbctool.records import ERROR, SPLITS, Record, group_of
from wbctool.records.composites import is_composite
from wbctool.records.selection import Selection, Tally
from wbctool.statistics.intervals import LEVEL, wilson_interval

SCHEMA = "wbctool.differential/1"
_SHOWN_GROUPS = 12


@dataclass
class Group:
    """The cells of one slide or patient.

    Attributes:
        counts: predictions by class.
        truth: labels by class, of the cells that have one.
        cells: number of cells.
        uncertain: number of predictions below the threshold, which are not in `counts`.
    """

    counts: Counter[str] = field(default_factory=Counter)
    truth: Counter[str] = field(default_factory=Counter)
    cells: int = 0
    uncertain: int = 0

    def add(self, other: Group) -> None:
        """Add the cells of another group of the same name."""
        self.counts += other.counts
        self.truth += other.truth
        self.cells += other.cells
        self.uncertain += other.uncertain


@dataclass
class DifferentialCount:
    """A differential count.

    Attributes:
        source: the inputs.
        report: as `evaluate --differential --json` prints it.
    """

    source: str
    report: dict[str, Any]

    @property
    def reports(self) -> list[dict[str, Any]]:
        """The report, alone in a list."""
        return [self.report]

    def table(self, form: str) -> Table:
        """Return one row for each group and class, for papers and spreadsheets, the same in every form."""
        rows = [
            [row["group"], label, str(cell["count"]), *map(exact_text, (cell["share"], *_ends(cell), cell["truth"]))]
            for row in self.report["groups"]
            for label, cell in row["classes"].items()
        ]
        return Table(["group", "class", "count", "share", "low", "high", "truth"], rows)

    def document(self, width: int) -> Document:
        """Lay out the count of each group, and the agreement with the truth where that is known."""
        groups = self.report["groups"]
        cells = _number(sum(row["n"] for row in groups), "cell")
        blocks: list[Block] = []
        if any(row["uncertain"] for row in groups):
            text = "Uncertain cells are left out of counts and fractions, and not of the truth."
            blocks.append(Paragraph(text, "soft"))
        blocks += [_group_section(row) for row in groups[:_SHOWN_GROUPS]]
        if len(groups) > _SHOWN_GROUPS:
            text = f"and {len(groups) - _SHOWN_GROUPS:,} groups more; --format csv or --json has all"
            blocks.append(Paragraph(text, "soft"))
        if self.report["agreement"]:
            blocks.append(_agreement_section(self.report["agreement"]))
        return Document(f"{self.source}: {cells} of {_number(len(groups), 'group')}", blocks)


def count_cells(
    inputs: Sequence[str],
    selection: Selection | None = None,
    split: str | None = None,
    threshold: float | None = None,
    quiet: bool = True,
) -> DifferentialCount:
    """Count predicted classes by group, and compare the fractions with those of the labels.

    Args:
        inputs: run folders, record files, or `-` for stdin.
        selection: of labels and groups; by default those of the records.
        split: `train`, `val`, `test` or `all`; None takes test where records carry splits, else all.
        threshold: confidence below which a prediction is not counted.
        quiet: no notes on stderr.

    Returns:
        The report, and its layouts.

    Raises:
        InputError: a record is no prediction, is of a composite, of a second run, or comes twice, or there are none.
        UsageProblem: there is no such split.
    """
    if split not in (None, *SPLITS, "all"):
        raise UsageProblem(f"--split {split}: choose from {', '.join(SPLITS)}, all")
    source = "stdin" if list(inputs) == ["-"] else ", ".join(inputs)
    with reading(map(predictions_file, inputs), selection or Selection()) as (records, tally):
        by_split, classes = _count(records, threshold, tally)
    groups, chosen = _of_split(by_split, split, source)
    if not quiet:
        note_selection(tally, source)
        if split is None and chosen == "test":
            note("the records carry splits: test is counted (--split all for all)")
        if all(group.cells == 1 for group in groups.values()):
            note("each cell is a group of its own; name slides or patients with --group-regex or --labels")
        if partly := sum(0 < sum(group.truth.values()) < group.cells for group in groups.values()):
            note(f"{partly:,} groups have cells without a label: no truth is shown for them")
    return DifferentialCount(source, differential_report(groups, classes, chosen))


def _count(
    records: Iterator[Record], threshold: float | None, tally: Tally
) -> tuple[dict[str | None, dict[str, Group]], list[str]]:
    """Count predictions by split and group; the classes in alphabetical order."""
    by_split: dict[str | None, dict[str, Group]] = {}
    classes: set[str] = set()
    runs: dict[str | None, str] = {}
    places: dict[tuple[str | None, str], str] = {}
    for record in records:
        if record["schema"] == ERROR:
            continue
        place = tally.place
        check_prediction(record, place)
        if is_composite(record):
            raise InputError(f"{place}: {record['id']} is a composite, which no patient has; leave composites out")
        runs.setdefault(record.get("run"), place)
        if len(runs) > 1:
            raise InputError(f"{place}: is of {record.get('run')}, those before of {next(iter(runs))}; count one run")
        first = places.setdefault((record.get("split"), record["id"]), place)
        if first is not place:
            raise InputError(f"{place}: {record['id']} is in {first}, too; keep one of them")
        classes.update(record["probabilities"])
        group = by_split.setdefault(record.get("split"), {}).setdefault(group_of(record), Group())
        group.cells += 1
        if threshold is not None and record["confidence"] < threshold:
            group.uncertain += 1
        else:
            group.counts[record["predicted"]] += 1
        if record.get("label") is not None:
            group.truth[record["label"]] += 1
            classes.add(record["label"])
    return by_split, sorted(classes)


def _of_split(
    by_split: dict[str | None, dict[str, Group]], split: str | None, source: str
) -> tuple[dict[str, Group], str]:
    """Return the groups of a split, or of all together, and the name of the split."""
    present = [name for name in SPLITS if name in by_split]
    wanted = split or ("test" if present else "all")
    if wanted != "all" and wanted not in by_split:
        raise InputError(f"{source}: no {wanted} predictions (splits found: {', '.join(present) or 'none'})")
    chosen: dict[str, Group] = {}
    for name, groups in by_split.items():
        for label, group in groups.items() if wanted in ("all", name) else ():
            chosen.setdefault(label, Group()).add(group)
    if not chosen:
        raise InputError(f"{source}: no predictions to count")
    return chosen, wanted


def differential_report(groups: dict[str, Group], classes: Iterable[str], split: str) -> dict[str, Any]:
    """Compute fractions and intervals of each group, and agreement over the groups whose cells all have labels.

    Args:
        groups: by name.
        classes: to report of each group.
        split: of the cells, or `all`.

    Returns:
        As `evaluate --differential --json` prints it.
    """
    rows = []
    differences: dict[str, list[float]] = {name: [] for name in classes}
    for name, group in sorted(groups.items()):
        counted = sum(group.counts.values())
        labelled = sum(group.truth.values()) == group.cells
        cells: dict[str, Any] = {}
        for label in differences:
            count = group.counts[label]
            fraction = count / counted if counted else None
            truth = group.truth[label] / group.cells if labelled else None
            interval = wilson_interval(count, counted)
            cells[label] = {"count": count, "share": fraction, "interval": interval and list(interval), "truth": truth}
            if fraction is not None and truth is not None:
                differences[label].append(fraction - truth)
        rows.append({"group": name, "n": group.cells, "uncertain": group.uncertain, "classes": cells})
    compared = {label: agreement_of(values) for label, values in differences.items() if values}
    return {"schema": SCHEMA, "split": split, "groups": rows, "agreement": compared}


def agreement_of(differences: Sequence[float]) -> dict[str, Any]:
    """Compute bias and limits of agreement (Bland and Altman 1986), with 95 % intervals by Student's t.

    Args:
        differences: predicted minus true fraction, one of each group.

    Returns:
        `groups`, `bias`, and, of two groups or more, `bias_interval`, `limits` and `limits_within`, the half-width of
        the interval of each limit; otherwise None.
    """
    count = len(differences)
    bias = float(np.mean(differences))
    agreement: dict[str, Any] = {"groups": count, "bias": bias}
    agreement |= dict.fromkeys(("bias_interval", "limits", "limits_within"))
    if count > 1:
        spread = float(np.std(differences, ddof=1))
        z, t = float(special.ndtri((1 + LEVEL) / 2)), float(special.stdtrit(count - 1, (1 + LEVEL) / 2))
        agreement["bias_interval"] = [bias - t * spread / np.sqrt(count), bias + t * spread / np.sqrt(count)]
        agreement["limits"] = [bias - z * spread, bias + z * spread]
        agreement["limits_within"] = float(t * spread * np.sqrt(1 / count + z**2 / (2 * (count - 1))))
    return agreement


def _group_section(row: dict[str, Any]) -> Section:
    labelled = any(cell["truth"] is not None for cell in row["classes"].values())
    rows = []
    for label, cell in row["classes"].items():
        low, high = _ends(cell)
        interval = "–" if low is None else f"{low:.1%} to {high:.1%}"
        truth = [_percent(cell["truth"])] if labelled else []
        rows.append([label, f"{cell['count']:,}", _percent(cell["share"]), interval, *truth])
    table = Table(["class", "count", "fraction", "95 % interval", *(["truth"] if labelled else [])], rows)
    uncertain = f", {row['uncertain']:,} uncertain left out" if row["uncertain"] else ""
    return Section(f"{row['group']}: {_number(row['n'], 'cell')}{uncertain}", [table])


def _agreement_section(compared: dict[str, Any]) -> Section:
    count = max(agreement["groups"] for agreement in compared.values())
    rows = []
    for label, agreement in compared.items():
        ends = [agreement[key] for key in ("bias_interval", "limits")]
        spans = ["–" if pair is None else f"{100 * pair[0]:+.1f} to {100 * pair[1]:+.1f}" for pair in ends]
        rows.append([label, f"{100 * agreement['bias']:+.1f}", *spans])
    table = Table(["class", "bias", "95 % interval", "limits of agreement"], rows)
    return Section(f"Agreement with the truth over {_number(count, 'group')}, in percentage points", [table])


def _ends(cell: dict[str, Any]) -> tuple[float | None, float | None]:
    low, high = cell["interval"] or (None, None)
    return low, high


def _number(number: int, unit: str) -> str:
    return f"{number:,} {unit}" + ("" if number == 1 else "s")


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{fraction:.1%}"
