"""The differential count: the shares of the classes among the cells of each slide or patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text
from scipy import special

from wbctool import PURPOSE
from wbctool.errors import InputError
from wbctool.evaluation.confidence import plain_table
from wbctool.evaluation.tables import Table
from wbctool.records import ERROR, PREDICTION, SPLITS, Record, group_of
from wbctool.records.composites import is_composite
from wbctool.records.tally import Tally

SCHEMA = "wbctool.differential/1"
LEVEL = 0.95
_SHOWN = 12  # groups on a terminal


@dataclass
class Group:
    """The cells of one slide or patient.

    Attributes:
        counts: of predictions, by class.
        truth: of labels, by class; of cells that have one.
        cells: how many there are.
        uncertain: predictions under the threshold, which are not counted.
    """

    counts: Counter[str] = field(default_factory=Counter)
    truth: Counter[str] = field(default_factory=Counter)
    cells: int = 0
    uncertain: int = 0


def count_groups(
    records: Iterable[Record], split: str | None, threshold: float | None, where: str, tally: Tally
) -> tuple[dict[str, Group], list[str], str]:
    """Count predictions by group.

    Args:
        records: prediction and error records, labelled or not.
        split: `train`, `val`, `test` or `all`; None takes test where records carry splits, else all.
        threshold: confidence under which a prediction is not counted.
        where: the input's name, for errors.
        tally: of the reading, which knows the line that a record came from.

    Returns:
        The groups by name in the order met, the classes in alphabetical order, and the split.

    Raises:
        InputError: a record is no prediction or of a composite, or there are none of that split.
    """
    of_split: dict[str | None, dict[str, Group]] = {}
    classes: set[str] = set()
    runs: dict[str | None, str] = {}
    met: dict[tuple[str | None, str], str] = {}
    for record in records:
        if record["schema"] == ERROR:
            continue
        if record["schema"] != PREDICTION:
            raise InputError(
                f"{tally.location}: {record['id']} is a {record['schema']} record; give what `wbctool predict` prints"
            )
        place = tally.location
        if is_composite(record):
            raise InputError(f"{place}: {record['id']} is a composite, which no patient has; leave composites out")
        runs.setdefault(record.get("run"), place)
        if len(runs) > 1:
            raise InputError(f"{place}: is of {record.get('run')}, those before of {next(iter(runs))}; count one run")
        first = met.setdefault((record.get("split"), record["id"]), place)
        if first is not place:
            raise InputError(f"{place}: {record['id']} is in {first}, too; keep one of them")
        if record["predicted"] not in record["probabilities"]:
            raise InputError(f"{place}: {record['id']}: the predicted class has no probability; predict again")
        classes.update(record["probabilities"])
        group = of_split.setdefault(record.get("split"), {}).setdefault(group_of(record), Group())
        group.cells += 1
        if threshold is not None and record["confidence"] < threshold:
            group.uncertain += 1
        else:
            group.counts[record["predicted"]] += 1
        if record.get("label") is not None:
            group.truth[record["label"]] += 1
            classes.add(record["label"])
    present = [name for name in SPLITS if name in of_split]
    wanted = split or ("test" if present else "all")
    if wanted != "all" and wanted not in of_split:
        raise InputError(f"{where}: no {wanted} predictions (splits found: {', '.join(present) or 'none'})")
    found: dict[str, Group] = {}
    for name, groups in of_split.items():
        for label, group in groups.items() if wanted in ("all", name) else ():
            whole = found.setdefault(label, Group())
            whole.counts += group.counts
            whole.truth += group.truth
            whole.cells += group.cells
            whole.uncertain += group.uncertain
    if not found:
        raise InputError(f"{where}: no predictions to count")
    return found, sorted(classes), wanted


def wilson(count: int, total: int) -> list[float] | None:
    """The 95 % interval of a share (Wilson 1927); None of nothing."""
    if total == 0:
        return None
    z = float(special.ndtri((1 + LEVEL) / 2))
    middle = (count + z**2 / 2) / (total + z**2)
    half = z / (total + z**2) * np.sqrt(count * (total - count) / total + z**2 / 4)
    return [max(0.0, float(middle - half)), min(1.0, float(middle + half))]


def agreement(differences: Sequence[float]) -> dict[str, Any]:
    """Bias and limits of agreement (Bland and Altman 1986), each with its 95 % interval by Student's t.

    Args:
        differences: predicted less true share, one of each group.

    Returns:
        `groups`, `bias`, and, of two groups or more, `bias_interval`, `limits` and `limits_within`, how far each
        limit may be off; null otherwise.
    """
    count = len(differences)
    bias = float(np.mean(differences))
    found: dict[str, Any] = {
        "groups": count,
        "bias": bias,
        "bias_interval": None,
        "limits": None,
        "limits_within": None,
    }
    if count > 1:
        spread = float(np.std(differences, ddof=1))
        z, t = float(special.ndtri((1 + LEVEL) / 2)), float(special.stdtrit(count - 1, (1 + LEVEL) / 2))
        found["bias_interval"] = [bias - t * spread / np.sqrt(count), bias + t * spread / np.sqrt(count)]
        found["limits"] = [bias - z * spread, bias + z * spread]
        found["limits_within"] = float(t * spread * np.sqrt(1 / count + z**2 / (2 * (count - 1))))
    return found


def differential(groups: dict[str, Group], classes: Sequence[str], split: str) -> dict[str, Any]:
    """All counts as one object; agreement is over groups whose cells all have labels."""
    rows = []
    differences: dict[str, list[float]] = {name: [] for name in classes}
    for name, group in sorted(groups.items()):
        counted = sum(group.counts.values())
        known = sum(group.truth.values()) == group.cells
        shares: dict[str, Any] = {}
        for label in classes:
            share = group.counts[label] / counted if counted else None
            true = group.truth[label] / group.cells if known else None
            interval = wilson(group.counts[label], counted)
            shares[label] = {"count": group.counts[label], "share": share, "interval": interval, "truth": true}
            if share is not None and true is not None:
                differences[label].append(share - true)
        rows.append({"group": name, "n": group.cells, "uncertain": group.uncertain, "classes": shares})
    compared = {label: agreement(values) for label, values in differences.items() if values}
    return {"schema": SCHEMA, "split": split, "groups": rows, "agreement": compared}


def differential_table(report: dict[str, Any]) -> Table:
    """One row for each group and class, for papers and spreadsheets."""

    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.6f}"

    rows = [
        [
            row["group"],
            label,
            str(one["count"]),
            *map(text, (one["share"], *(one["interval"] or (None, None)), one["truth"])),
        ]
        for row in report["groups"]
        for label, one in row["classes"].items()
    ]
    return Table(["group", "class", "count", "share", "low", "high", "truth"], rows)


def print_differential(report: dict[str, Any], source: str, console: Console) -> None:
    """Print the count of each group, and the agreement with the truth where that is known."""
    groups = report["groups"]
    cells = sum(row["n"] for row in groups)
    console.print(Text(f"{source}: {_counted(cells, 'cell')} of {_counted(len(groups), 'group')}", style="bold"))
    if any(row["uncertain"] for row in groups):
        console.print(Text("Uncertain cells are left out of counts and shares, and not of the truth.", style="dim"))
    console.print()
    for row in groups[:_SHOWN]:
        left = f", {row['uncertain']:,} uncertain left out" if row["uncertain"] else ""
        console.print(Text(f"{row['group']}: {_counted(row['n'], 'cell')}{left}", style="bold"))
        drawn = plain_table()
        drawn.add_column("class", overflow="fold")
        known = any(one["truth"] is not None for one in row["classes"].values())
        for name in ("count", "share", "95 % interval", *(["truth"] if known else [])):
            drawn.add_column(name, justify="right", no_wrap=True)
        for label, one in row["classes"].items():
            cells = [f"{one['count']:,}", _percent(one["share"]), _range(one["interval"])]
            drawn.add_row(Text(label), *cells, *([_percent(one["truth"])] if known else []))
        console.print(drawn)
        console.print()
    if len(groups) > _SHOWN:
        console.print(Text(f"and {len(groups) - _SHOWN:,} groups more; --format csv or --json holds all", style="dim"))
        console.print()
    if report["agreement"]:
        _print_agreement(report["agreement"], console)
    console.print(Text(PURPOSE, style="dim"))


def _print_agreement(compared: dict[str, Any], console: Console) -> None:
    count = max(one["groups"] for one in compared.values())
    title = f"Agreement with the truth over {_counted(count, 'group')}, in points of percent"
    console.print(Text(title, style="bold"))
    drawn = plain_table()
    drawn.add_column("class", overflow="fold")
    for name in ("bias", "95 % interval", "limits of agreement"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for label, one in compared.items():
        spans = [
            "–" if one[key] is None else f"{100 * one[key][0]:+.1f} to {100 * one[key][1]:+.1f}"
            for key in ("bias_interval", "limits")
        ]
        drawn.add_row(Text(label), f"{100 * one['bias']:+.1f}", *spans)
    console.print(drawn)
    console.print()


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _range(interval: list[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}"
