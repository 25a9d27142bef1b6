"""The differential count: the fractions of the classes among the cells of each slide or patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from wbctool.console import note
from wbctool.errors import InputError, counted
from wbctool.evaluation.document import Block, Paragraph, Result, Section, Table, exact_text
from wbctool.evaluation.sources import check_prediction, check_split, note_selection, predictions_file, reading
from wbctool.records import ERROR, SPLITS, Record, group_of
from wbctool.records.composites import is_composite
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally
from wbctool.statistics.intervals import LEVEL, wilson_interval

SCHEMA = "wbctool.differential/1"
_SHOWN_GROUPS = 12
_Cells = Counter[tuple[str | None, str | None]]  # by predicted class and label
_Key = tuple[str | None, str, str | None, str | None]  # split, group, predicted class and label


def count_cells(
    inputs: Sequence[str],
    selection: Selection | None = None,
    split: str | None = None,
    threshold: float | None = None,
    quiet: bool = True,
) -> Result:
    """Count predicted classes by group, and compare the fractions with those of the labels.

    Args:
        inputs: run folders, record files, or `-` for stdin.
        selection: of labels and groups; by default those of the records.
        split: `train`, `val`, `test` or `all`; None takes test where records carry splits, else all.
        threshold: confidence below which a prediction is not counted.
        quiet: no notes on stderr.

    Returns:
        One report, and `table`, with a row for each group and class.

    Raises:
        InputError: a record is no prediction, is of a composite, of a second run, or comes twice, or there are none.
        UsageProblem: there is no such split.
    """
    check_split(split)
    source = "stdin" if list(inputs) == ["-"] else ", ".join(inputs)
    with reading(map(predictions_file, inputs), selection or Selection()) as (records, tally):
        cells, classes = _count(records, threshold, tally)
    present = [name for name in SPLITS if any(name == key[0] for key in cells)]
    chosen = split or ("test" if present else "all")
    groups: dict[str, _Cells] = {}
    for (of_split, group, *cell), number in cells.items():
        if chosen in ("all", of_split):
            groups.setdefault(group, Counter())[cell[0], cell[1]] += number
    if not groups:
        raise InputError(f"{source}: no {chosen} predictions to count (splits found: {', '.join(present) or 'none'})")
    report = differential_report(groups, classes, chosen)
    if not quiet:
        note_selection(tally, source)
        if split is None and chosen == "test":
            note("the records carry splits: test is counted (--split all for all)")
        if all(row["n"] == 1 for row in report["groups"]):
            note("each cell is a group of its own; name slides or patients with --group-regex or --labels")
        unlabelled = (sum(number for (_, label), number in group.items() if label is None) for group in groups.values())
        if partly := sum(0 < number < group.total() for number, group in zip(unlabelled, groups.values(), strict=True)):
            note(f"{partly:,} groups have cells without a label: no truth is shown for them")
    return Result([report], _document(report, source), lambda form: _exact_counts(report))


def _count(records: Iterator[Record], threshold: float | None, tally: Tally) -> tuple[Counter[_Key], list[str]]:
    """Count cells, and return the classes in alphabetical order."""
    cells: Counter[_Key] = Counter()
    classes: set[str] = set()
    runs: dict[str | None, str] = {}
    places: dict[tuple[str | None, str], str] = {}
    for record in records:
        if record["schema"] == ERROR:
            continue
        place, split, label = tally.location, record.get("split"), record.get("label")
        check_prediction(record, place)
        if is_composite(record):
            raise InputError(f"{place}: {record['id']} is a composite, which no patient has; leave composites out")
        runs.setdefault(record.get("run"), place)
        if len(runs) > 1:
            raise InputError(f"{place}: is of {record.get('run')}, those before of {next(iter(runs))}; count one run")
        first = places.setdefault((split, record["id"]), place)
        if first is not place:
            raise InputError(f"{place}: {record['id']} is in {first}, too; keep one of them")
        certain = threshold is None or record["confidence"] >= threshold
        cells[split, group_of(record), record["predicted"] if certain else None, label] += 1
        classes.update(record["probabilities"], [] if label is None else [label])
    return cells, sorted(classes)


def differential_report(groups: Mapping[str, _Cells], classes: Iterable[str], split: str) -> dict[str, Any]:
    """Compute fractions and intervals of each group, and agreement over the groups whose cells all have labels.

    Cells are counted by predicted class, None where it is uncertain, and label, None where there is none.
    """
    rows = []
    differences: dict[str, list[float]] = {name: [] for name in classes}
    for name, cells in sorted(groups.items()):
        total = cells.total()
        predicted: Counter[str | None] = Counter()
        labels: Counter[str | None] = Counter()
        for (predicted_class, label), number in cells.items():
            predicted[predicted_class] += number
            labels[label] += number
        certain = total - predicted[None]
        of_classes: dict[str, Any] = {}
        for label in differences:
            count = predicted[label]
            fraction = count / certain if certain else None
            truth = None if labels[None] else labels[label] / total
            ends = wilson_interval(count, certain)
            of_classes[label] = {"count": count, "share": fraction, "interval": ends and [*ends], "truth": truth}
            if fraction is not None and truth is not None:
                differences[label].append(fraction - truth)
        rows.append({"group": name, "n": total, "uncertain": predicted[None], "classes": of_classes})
    compared = {label: agreement_of(values) for label, values in differences.items() if values}
    return {"schema": SCHEMA, "split": split, "groups": rows, "agreement": compared}


def agreement_of(differences: Sequence[float]) -> dict[str, Any]:
    """Compute bias and limits of agreement (Bland and Altman 1986), with 95 % intervals by Student's t.

    Of the differences, predicted minus true fraction of each group, `limits_within` is the half-width of the interval
    of each limit; a single group has a bias only.
    """
    count = len(differences)
    bias = float(np.mean(differences))
    agreement: dict[str, Any] = {"groups": count, "bias": bias}
    agreement |= dict.fromkeys(("bias_interval", "limits", "limits_within"))
    if count > 1:
        spread = float(np.std(differences, ddof=1))
        z, t = float(special.ndtri((1 + LEVEL) / 2)), float(special.stdtrit(count - 1, (1 + LEVEL) / 2))
        reach = t * spread / np.sqrt(count)
        agreement["bias_interval"] = [bias - reach, bias + reach]
        agreement["limits"] = [bias - z * spread, bias + z * spread]
        agreement["limits_within"] = float(t * spread * np.sqrt(1 / count + z**2 / (2 * (count - 1))))
    return agreement


def _exact_counts(report: dict[str, Any]) -> Table:
    rows = []
    for group in report["groups"]:
        for label, cell in group["classes"].items():
            values = map(exact_text, (cell["share"], *(cell["interval"] or (None, None)), cell["truth"]))
            rows.append([group["group"], label, str(cell["count"]), *values])
    return Table(["group", "class", "count", "share", "low", "high", "truth"], rows)


def _document(report: dict[str, Any], source: str) -> Section:
    groups = report["groups"]
    blocks: list[Block] = []
    if any(row["uncertain"] for row in groups):
        blocks.append(Paragraph("Uncertain cells are left out of counts and fractions, and not of the truth.", "soft"))
    blocks += [_group_section(row) for row in groups[:_SHOWN_GROUPS]]
    if len(groups) > _SHOWN_GROUPS:
        text = f"and {len(groups) - _SHOWN_GROUPS:,} groups more; --format csv or --json has all"
        blocks.append(Paragraph(text, "soft"))
    if report["agreement"]:
        blocks.append(_agreement_section(report["agreement"]))
    cells = counted(sum(row["n"] for row in groups), "cell")
    return Section(f"{source}: {cells} of {counted(len(groups), 'group')}", blocks)


def _group_section(row: dict[str, Any]) -> Section:
    labelled = any(cell["truth"] is not None for cell in row["classes"].values())
    rows = []
    for label, cell in row["classes"].items():
        interval = " to ".join(map(_percent, cell["interval"])) if cell["interval"] else "–"
        truth = [_percent(cell["truth"])] if labelled else []
        rows.append([label, f"{cell['count']:,}", _percent(cell["share"]), interval, *truth])
    table = Table(["class", "count", "fraction", "95 % interval", *(["truth"] if labelled else [])], rows)
    uncertain = f", {row['uncertain']:,} uncertain left out" if row["uncertain"] else ""
    return Section(f"{row['group']}: {counted(row['n'], 'cell')}{uncertain}", [table])


def _agreement_section(compared: dict[str, Any]) -> Section:
    count = max(agreement["groups"] for agreement in compared.values())
    rows = []
    for label, agreement in compared.items():
        ends = [agreement[key] for key in ("bias_interval", "limits")]
        spans = ["–" if pair is None else f"{100 * pair[0]:+.1f} to {100 * pair[1]:+.1f}" for pair in ends]
        rows.append([label, f"{100 * agreement['bias']:+.1f}", *spans])
    table = Table(["class", "bias", "95 % interval", "limits of agreement"], rows)
    return Section(f"Agreement with the truth over {counted(count, 'group')}, in percentage points", [table])


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{fraction:.1%}"
