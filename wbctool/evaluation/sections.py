"""The sections of the report of one run, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wbctool.evaluation.document import (
    Block,
    Cell,
    Errors,
    Items,
    Matrix,
    Paragraph,
    Pictures,
    Section,
    Table,
    exact_text,
    value_text,
)
from wbctool.statistics.metrics import METRICS, Metric, metrics_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLIT_NAMES = {"all": "all predictions", "val": "validation"}
_REMEDIES = {
    "near_duplicates": "Next: `wbctool split --near-duplicates`, and train again.",
    "groups": "Next: `wbctool split --group-regex …`, and train again.",
}


def report_sections(
    report: dict[str, Any], columns: Sequence[str], plots: Mapping[str, Figure], explanations: Mapping[str, str]
) -> list[Block]:
    """Lay out the report of one run, with its audit and its plots where it has any; without columns, all metrics."""
    blocks: list[Block] = [Paragraph(f"left out: {line}", "warning") for line in report["left_out"]]
    if report["composites"]:
        text = f"{report['composites']:,} of {report['n']:,} images are composites: the figures are not of real images"
        blocks.append(Paragraph(f"{text} alone", "warning"))
    blocks += [
        Section("Metrics", [_metric_table(report, metrics_of(names=columns)), _interval_note(report)]),
        Section("Classes", [_class_table(report["classes"])]),
        Section("Confusion matrix", [Matrix(report["confusion"]["classes"], report["confusion"]["matrix"])]),
        *_errors(report, explanations),
        *_confidence(report),
    ]
    if curves := [plots[name] for name in ("reliability", "coverage", "roc", "precision-recall") if name in plots]:
        blocks.append(Section("Curves", [Pictures(curves)]))
    if report["threshold"]:
        blocks.append(_threshold(report["threshold"], report["n"]))
    if "audit" in report:
        blocks.append(_audit(report["audit"], report))
    if "learning-curves" in plots:
        blocks.append(Section("Training", [Pictures([plots["learning-curves"]], wide=True)]))
    return blocks


def exact_metrics(report: dict[str, Any], columns: Sequence[str]) -> Table:
    """Return metrics with their intervals in full, for papers and spreadsheets."""
    rows = [
        [metric.title, *map(exact_text, (report[metric.name], *(report["intervals"][metric.name] or (None, None))))]
        for metric in metrics_of(names=columns)
    ]
    return Table(["figure", "value", "low", "high"], rows)


def _metric_table(
    report: dict[str, Any], metrics: Iterable[Metric], header: str = "value", whole: dict[str, Any] | None = None
) -> Table:
    """Return the metrics of a report or summary, after those of the whole if it is given."""
    rows: list[list[Cell | str]] = []
    for metric in metrics:
        values = [each[metric.name] for each in (whole, report) if each]
        ends = report["intervals"][metric.name]
        interval = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "–"
        name = Cell(metric.title, hint=f"{metric.help} {metric.source}".strip())
        rows.append([name, *map(value_text, values), interval])
    return Table(["metric", *([f"all {whole['n']:,}"] if whole else []), header, "95 % interval"], rows)


def _summary_table(summary: dict[str, Any], title: str, whole: dict[str, Any] | None = None) -> Table:
    """Return the table of a summary, under a title and its number of images."""
    return _metric_table(summary, metrics_of("confusion", "summary"), f"{title}: {summary['n']:,}", whole)


def _interval_note(report: dict[str, Any]) -> Paragraph:
    if report["groups"] == 1:
        return Paragraph("No intervals: all images are of one group, which says nothing of others.", "soft")
    units = f"{report['groups']:,} groups" if report["groups"] < report["n"] else "images"
    return Paragraph(f"Intervals by a bootstrap over {units}.", "soft")


def _class_table(classes: dict[str, dict[str, Any]]) -> Table:
    rows: list[list[Cell | str]] = []
    for label, row in classes.items():
        cells: list[Cell | str] = [label, f"{row['support']:,}"]
        for key in ("precision", "recall", "f1", "specificity"):
            interval = row["intervals"][key]
            detail = f"{interval[0]:.2f}–{interval[1]:.2f}" if interval else ""
            cells.append(Cell(f"{row[key]:.3f}", detail) if row["support"] or interval else Cell("–"))
        rows.append(cells)
    return Table(["class", "images", "precision", "recall", "F1", "specificity"], rows)


def _errors(report: dict[str, Any], explanations: Mapping[str, str]) -> list[Block]:
    pairs = [f"{p['label']} as {p['predicted']}: {p['count']:,} ({p['share']:.0%})" for p in report["confused"]]
    if not pairs:
        return []
    errors = Errors(report["wrongest"], explanations)
    return [Section("Most frequent confusions", [Items(pairs)]), Section("Errors of highest confidence", [errors])]


def _confidence(report: dict[str, Any]) -> list[Block]:
    before, rows = report["before"], report["coverage"]
    blocks: list[Block] = [_reliability_table(report)]
    for metric in (METRICS.get("calibration_error"), METRICS.get("log_loss")) if before else ():
        change = f"{value_text(before[metric.name])} before scaling, {value_text(report[metric.name])} after"
        blocks.append(Paragraph(f"{metric.title}: {change}"))
    error = ["error", *(f"{row['error']:.2%}" for row in rows)]
    threshold = ["threshold", *(f"{row['threshold']:.3f}" for row in rows)]
    curve = Table(["coverage", *(f"{row['coverage']:.0%}" for row in rows)], [error, threshold])
    scaling = f" (temperature {report['temperature']:g})" if before and report["temperature"] else ""
    return [Section(f"Confidence{scaling}", blocks), Section("Risk–coverage curve", [curve])]


def _reliability_table(report: dict[str, Any]) -> Table:
    """Return confidence and accuracy by bin, before and after scaling where probabilities were scaled."""
    headers, halves = ["between", "images", "confidence", "accuracy"], [report["reliability"]]
    if before := report["before"]:
        halves.insert(0, before["reliability"])
        headers = [f"\n\n{name}" for name in (*headers, *headers[1:])]
        headers[1], headers[4] = "before\nscaling\nimages", "after\nscaling\nimages"
    by_bin = [{(row["above"], row["to"]): row for row in half} for half in halves]
    rows = []
    for ends in sorted({ends for half in by_bin for ends in half}):
        cells = [f"{ends[0]:.2f} and {ends[1]:.2f}"]
        for row in (half.get(ends) for half in by_bin):
            cells += [f"{row['n']:,}", f"{row['confidence']:.3f}", f"{row['accuracy']:.3f}"] if row else ["", "", ""]
        rows.append(cells)
    return Table(headers, rows)


def _threshold(threshold: dict[str, Any], count: int) -> Section:
    basis = threshold["chosen_on"]
    if basis != "given":
        basis = "validation" if basis == "validation" else f"the very images it is measured on ({basis})"
        basis = f"chosen on {basis}"
    rows = []
    for name, row in threshold["classes"].items():
        fraction = f"{row['uncertain'] / row['support']:.1%}" if row["support"] else "–"
        rows.append([name, f"{row['uncertain']:,}", f"{row['support']:,}", fraction])
    uncertain = f"{threshold['uncertain']:,} of {count:,} ({threshold['uncertain'] / count:.1%})"
    rest = threshold["rest"]
    left = _summary_table(rest, "the rest") if rest else Paragraph("No prediction is left.")
    table = Table(["class", "uncertain", "of", "fraction"], rows)
    blocks: list[Block] = [Paragraph(f"{basis}; uncertain: {uncertain}"), table, left]
    return Section(f"Threshold {threshold['value']:.4g}", blocks)


def _audit(audit: dict[str, Any], report: dict[str, Any]) -> Section:
    """Lay out each check with examples, and the metrics with and without the tainted images."""
    blocks: list[Block] = []
    if audit["not_compared"]:
        blocks.append(Paragraph(f"{audit['not_compared']:,} images cannot be read and were not compared", "warning"))
    if not audit["turned"]:
        text = "too many images to look for copies that are turned (by other than quarters), sheared or cut out"
        blocks.append(Paragraph(text, "warning"))
    for check in audit["checks"]:
        mark, outcome = _outcome(check, audit)
        blocks.append(Paragraph(f"{mark} {check['title']}: {outcome}", "strong" if mark == "!" else "plain"))
        if check["examples"]:
            blocks.append(Items(["  =  ".join(example) for example in check["examples"]], folded=True))
        if check["without"]:
            title = "where it misleads" if check.get("feature") else "without them"
            blocks.append(_summary_table(check["without"], title, report))
        if mark == "!" and check["name"] in _REMEDIES:
            blocks.append(Paragraph(_REMEDIES[check["name"]]))
    if sum(bool(check["count"]) for check in audit["checks"][:3]) > 1 and audit["without"]:
        blocks.append(Paragraph(f"All together: {audit['tainted']:,} tainted", "strong"))
        blocks.append(_summary_table(audit["without"], "without them", report))
    return Section(f"Audit, against {audit['trained_on']:,} images of {audit['of']}", blocks)


def _outcome(check: dict[str, Any], audit: dict[str, Any]) -> tuple[str, str]:
    """Return how a check ended: `!`, `?` or `✓`, and in words."""
    if check["count"] and check.get("feature"):
        return "!", f"balanced accuracy {check['balanced_accuracy']:.3f}, by chance {check['chance']:.3f}"
    if check["count"]:
        return "!", f"{check['count']:,} of {check['of']:,}"
    if check["name"] == "near_duplicates" and audit["not_compared"]:
        return "?", "not all could be looked at"
    return "✓", "none"
