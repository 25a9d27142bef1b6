"""The sections of the report of one run, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wbctool.evaluation.audit_sections import audit_section
from wbctool.evaluation.document import (
    Block,
    Cards,
    Cell,
    Image,
    Images,
    Items,
    Matrix,
    Paragraph,
    Pictures,
    Section,
    Table,
    exact_text,
    interval_text,
    value_text,
)
from wbctool.evaluation.subsets import summary_table
from wbctool.statistics.metric import Metric
from wbctool.statistics.metrics import METRICS, metrics_in, metrics_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLIT_NAMES = {"all": "all predictions", "val": "validation"}


@dataclass(frozen=True)
class Illustrations:
    """What a page shows beside the text.

    Attributes:
        plots: by name, as `plots.plots_of` draws them, and `learning-curves` where the training is known.
        explanations: paths of pictures that explain predictions, by image id.
    """

    plots: Mapping[str, Figure] = field(default_factory=dict)
    explanations: Mapping[str, str] = field(default_factory=dict)


def report_sections(
    report: dict[str, Any], columns: Sequence[str] = (), illustrations: Illustrations | None = None
) -> list[Block]:
    """Lay out the report of one run.

    Args:
        report: as `report.report_of` returns it; `audit` is shown where it is there.
        columns: names of the metrics to show; by default all.
        illustrations: for a page.
    """
    illustrations = illustrations or Illustrations()
    blocks = [
        *_overview(report),
        Section("Metrics", [_metric_table(report, columns), _interval_note(report)]),
        Section("Classes", [_class_table(report["classes"])]),
        Section("Confusion matrix", [Matrix(report["confusion"]["classes"], report["confusion"]["matrix"])]),
        *_errors(report, illustrations.explanations),
        *_confidence(report, illustrations.plots),
    ]
    if report["threshold"]:
        blocks.append(_threshold(report["threshold"], report["n"]))
    if "audit" in report:
        blocks.append(audit_section(report["audit"], report))
    if curves := illustrations.plots.get("learning-curves"):
        blocks.append(Section("Training", [Pictures([curves], wide=True)]))
    return blocks


def report_title(report: dict[str, Any], source: str) -> str:
    """Return the source of a report, and what it is of."""
    return f"{source}: {report['n']:,} images ({SPLIT_NAMES.get(report['split'], report['split'])})"


def metric_rows(report: dict[str, Any], columns: Sequence[str] = ()) -> Table:
    """Return metrics with their intervals in full, for papers and spreadsheets."""
    rows = [
        [metric.title, *map(exact_text, (report[metric.name], *(report["intervals"][metric.name] or (None, None))))]
        for metric in _chosen(columns)
    ]
    return Table(["figure", "value", "low", "high"], rows)


def _chosen(columns: Sequence[str]) -> list[Metric]:
    return [METRICS.get(name) for name in columns] or metrics_of(Metric)


def _overview(report: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = [Paragraph(f"left out: {line}", "warning") for line in report["left_out"]]
    if report["composites"]:
        text = f"{report['composites']:,} of {report['n']:,} images are composites: the figures are not of real images"
        blocks.append(Paragraph(f"{text} alone", "warning"))
    summary = [metric for metric in metrics_in("summary") if metric.name in report]
    values = [value_text(report[metric.name], 3) for metric in summary]
    intervals = [interval_text(report["intervals"][metric.name], 3) for metric in summary]
    return [*blocks, Cards(list(zip((metric.title for metric in summary), values, intervals, strict=True)))]


def _interval_note(report: dict[str, Any]) -> Paragraph:
    if report["groups"] == 1:
        return Paragraph("No intervals: all images are of one group, which says nothing of others.", "soft")
    units = f"{report['groups']:,} groups" if report["groups"] < report["n"] else "images"
    return Paragraph(f"Intervals by a bootstrap over {units}.", "soft")


def _metric_table(report: dict[str, Any], columns: Sequence[str]) -> Table:
    rows: list[list[Cell | str]] = []
    for metric in _chosen(columns):
        hint = f"{metric.help} {metric.source}".strip()
        interval = interval_text(report["intervals"][metric.name])
        rows.append([Cell(metric.title, hint=hint), value_text(report[metric.name]), interval])
    return Table(["metric", "value", "95 % interval"], rows)


def _class_table(classes: dict[str, dict[str, Any]]) -> Table:
    rows: list[list[Cell | str]] = []
    for label, row in classes.items():
        cells = []
        for key in ("precision", "recall", "f1", "specificity"):
            interval = row["intervals"][key]
            detail = f"{interval[0]:.2f}–{interval[1]:.2f}" if interval else ""
            known = row["support"] or interval
            cells.append(Cell(f"{row[key]:.3f}", detail) if known else "–")
        rows.append([label, f"{row['support']:,}", *cells])
    return Table(["class", "images", "precision", "recall", "F1", "specificity"], rows)


def _errors(report: dict[str, Any], explanations: Mapping[str, str]) -> list[Block]:
    if not report["confused"]:
        return []
    pairs = [
        f"{pair['label']} as {pair['predicted']}: {pair['count']:,} ({pair['share']:.0%})"
        for pair in report["confused"]
    ]
    images = [Image(**error, explanation=explanations.get(error["id"], "")) for error in report["wrongest"]]
    return [
        Section("Most frequent confusions", [Items(pairs)]),
        Section("Errors of highest confidence", [Images(images)]),
    ]


def _confidence(report: dict[str, Any], plots: Mapping[str, Figure]) -> list[Block]:
    title = "Confidence"
    if report["before"] and report["temperature"]:
        title += f" (temperature {report['temperature']:g})"
    reliability: list[Block] = [_reliability_table(report)]
    for metric in (METRICS.get("calibration_error"), METRICS.get("log_loss")) if report["before"] else ():
        before, after = value_text(report["before"][metric.name]), value_text(report[metric.name])
        reliability.append(Paragraph(f"{metric.title}: {before} before scaling, {after} after"))
    rows = report["coverage"]
    coverage = Table(
        ["coverage", *(f"{row['coverage']:.0%}" for row in rows)],
        [
            ["error", *(f"{row['error']:.2%}" for row in rows)],
            ["threshold", *(f"{row['threshold']:.3f}" for row in rows)],
        ],
    )
    blocks: list[Block] = [Section(title, reliability), Section("Risk–coverage curve", [coverage])]
    shown = [plots[name] for name in ("reliability", "coverage", "roc", "precision-recall") if name in plots]
    return [*blocks, Section("Curves", [Pictures(shown)])] if shown else blocks


def _reliability_table(report: dict[str, Any]) -> Table:
    """Return confidence and accuracy by bin, before and after scaling where probabilities were scaled."""
    before = report["before"]
    halves = [before["reliability"], report["reliability"]] if before else [report["reliability"]]
    columns = ["\n\nbetween" if before else "between"]
    for when in ("before\nscaling\n", "after\nscaling\n") if before else ("",):
        space = "\n" * when.count("\n")
        columns += [f"{when}images", f"{space}confidence", f"{space}accuracy"]
    by_bin = [{(row["above"], row["to"]): row for row in half} for half in halves]
    rows = []
    for ends in sorted({ends for half in by_bin for ends in half}):
        cells = [f"{ends[0]:.2f} and {ends[1]:.2f}"]
        for half in by_bin:
            row = half.get(ends)
            cells += [f"{row['n']:,}", f"{row['confidence']:.3f}", f"{row['accuracy']:.3f}"] if row else ["", "", ""]
        rows.append(cells)
    return Table(columns, rows)


def _threshold(threshold: dict[str, Any], count: int) -> Section:
    bases = {"given": "given", "validation": "chosen on validation"}
    basis = bases.get(threshold["chosen_on"], f"chosen on the very images it is measured on ({threshold['chosen_on']})")
    uncertain = f"{threshold['uncertain']:,} of {count:,} ({threshold['uncertain'] / count:.1%})"
    rows = [
        [
            name,
            f"{row['uncertain']:,}",
            f"{row['support']:,}",
            f"{row['uncertain'] / row['support']:.1%}" if row["support"] else "–",
        ]
        for name, row in threshold["classes"].items()
    ]
    rest = threshold["rest"]
    kept = summary_table(rest, "the rest") if rest else Paragraph("No prediction is left.")
    return Section(
        f"Threshold {threshold['value']:.4g}",
        [
            Paragraph(f"{basis}; uncertain: {uncertain}"),
            Table(["class", "uncertain", "of", "fraction"], rows),
            kept,
        ],
    )
