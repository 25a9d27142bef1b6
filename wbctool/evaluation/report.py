"""The report of one run: a JSON object with every metric, and its layout for the terminal and the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wbctool.errors import InputError, counted
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
from wbctool.evaluation.predictions import EvaluationOptions, Predictions
from wbctool.statistics.calibration import coverage_table, reliability, risk_coverage, scaled, threshold_for
from wbctool.statistics.counts import CLASS_METRICS, ConfusionCounts, Scores, confusion_matrix, values_of
from wbctool.statistics.intervals import Draws, Interval, confusion_intervals, score_intervals
from wbctool.statistics.metrics import METRICS, Metric, metrics_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = "wbctool.evaluation/1"
SPLIT_NAMES = {"all": "all predictions", "val": "validation"}
_REMEDIES = {
    "near_duplicates": "Next: `wbctool split --near-duplicates`, and train again.",
    "groups": "Next: `wbctool split --group-regex …`, and train again.",
}
_LISTED_ERRORS, _LISTED_CONFUSIONS = 10, 5


def report_of(predictions: Predictions, options: EvaluationOptions) -> dict[str, Any]:
    """Compute the report: one flat object of metrics, as `evaluate --json` prints it; undefined values are None.

    Predictions below the threshold of confidence, which may be sought for a target error, are set apart. With the
    option `by`, images of each value of that key are also summarised alone.

    Raises:
        InputError: no threshold reaches the target, or no record has the key.
    """
    uncertain = _threshold(predictions, options.threshold, options.target_error)
    classes, truth, predicted = predictions.classes, predictions.truth, predictions.predicted
    counts = ConfusionCounts(confusion_matrix(truth, predicted, len(classes)))
    values = values_of(predictions)
    draws = Draws(predictions.groups)
    intervals, drawn = score_intervals(draws, predictions, values)
    confusion, by_class = confusion_intervals(draws, truth, predicted, len(classes), drawn)
    return {
        "schema": SCHEMA,
        "run": predictions.run,
        "n": len(truth),
        "groups": draws.count,
        "split": predictions.split,
        **metric_values(values, intervals | confusion),
        "classes": {
            name: {
                "support": int(counts.support[index]),
                **{key: float(counts.per_class[key][index]) for key in CLASS_METRICS},
                "intervals": {key: ends_of(by_class[key][index]) for key in CLASS_METRICS},
            }
            for index, name in enumerate(classes)
        },
        "confusion": {"classes": classes, "matrix": counts.confusion.tolist()},
        "confused": _most_confused(counts.confusion, classes),
        "wrongest": _most_confident_errors(predictions),
        **_confidence(predictions),
        "threshold": uncertain,
        **({"prediction_sets": _prediction_sets(predictions, draws)} if predictions.coverage else {}),
        **({"by": _by_subgroup(predictions, options.by)} if options.by else {}),
        "left_out": predictions.notes,
        "composites": predictions.composites,
    }


def summary_of(predictions: Predictions) -> dict[str, Any]:
    """Return `n`, the metrics declared for a summary, and their `intervals`, of one image or more."""
    metrics = metrics_of("confusion", "summary")
    values = values_of(predictions, metrics)
    draws = Draws(predictions.groups)
    intervals, _ = confusion_intervals(draws, predictions.truth, predictions.predicted, len(predictions.classes))
    return {"n": len(predictions.ids), **metric_values(values, intervals)}


def _by_subgroup(predictions: Predictions, key: str) -> dict[str, Any]:
    """Summarise the images of each value of a key, that of the lowest balanced accuracy first."""
    if (predictions.subgroups < 0).all():
        raise InputError(f"--by {key}: no prediction has the key {key}; add it to the records that `predict` reads")
    subgroups = [
        {"name": name, **summary_of(predictions.subset(chosen))}
        for number, name in enumerate(predictions.subgroup_names)
        if (chosen := predictions.subgroups == number).any()
    ]
    subgroups.sort(key=lambda subgroup: subgroup["balanced_accuracy"])
    return {"key": key, "subgroups": subgroups, "without": int((predictions.subgroups < 0).sum())}


def _prediction_sets(predictions: Predictions, draws: Draws) -> dict[str, Any]:
    """Count how often prediction sets hold the true class, of all images and of each class, and their sizes."""
    count, covered = len(predictions.ids), predictions.covered
    drawn = draws.sums(np.zeros(count, int), 1, covered)[:, 0] / draws.sums(np.zeros(count, int), 1)[:, 0]
    sizes, counts = np.unique(predictions.set_sizes, return_counts=True)
    classes = {}
    for index, name in enumerate(predictions.classes):
        of_class = predictions.truth == index
        if of_class.any():
            classes[name] = {
                "support": int(of_class.sum()),
                "covered": float(covered[of_class].mean()),
                "mean_size": float(predictions.set_sizes[of_class].mean()),
            }
    return {
        "wanted": predictions.coverage,
        "covered": float(covered.mean()),
        "interval": ends_of(draws.interval(float(covered.mean()), drawn)),
        "mean_size": float(predictions.set_sizes.mean()),
        "sizes": dict(zip(map(str, sizes.tolist()), counts.tolist(), strict=True)),
        "classes": classes,
    }


def metric_values(values: dict[str, float], intervals: dict[str, Interval]) -> dict[str, Any]:
    """Return metrics and their `intervals` as JSON has them."""
    ends = {name: ends_of(intervals[name]) for name in values}
    return {**{name: none_if_nan(value) for name, value in values.items()}, "intervals": ends}


def none_if_nan(value: float) -> float | None:
    """Return a value as JSON has it, where undefined ones are None."""
    return None if math.isnan(value) else float(value)


def ends_of(interval: Interval) -> list[float] | None:
    """Return the ends of an interval as JSON has them."""
    return None if math.isnan(interval[0]) else list(interval)


def _most_confused(confusion: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    errors = confusion - np.diag(np.diagonal(confusion))
    pairs = []
    for i, j in zip(*np.nonzero(errors), strict=True):
        counts = {"count": int(errors[i, j]), "share": errors[i, j] / confusion[i].sum()}
        pairs.append({"label": classes[i], "predicted": classes[j], **counts})
    return sorted(pairs, key=lambda pair: (-pair["count"], -pair["share"]))[:_LISTED_CONFUSIONS]


def _most_confident_errors(predictions: Predictions) -> list[dict[str, Any]]:
    errors = np.flatnonzero(~predictions.correct)
    ranked = errors[np.argsort(-predictions.confidence[errors], kind="stable")[:_LISTED_ERRORS]]
    return [
        {
            "id": predictions.ids[row],
            "path": predictions.paths[row],
            "label": predictions.classes[predictions.truth[row]],
            "predicted": predictions.classes[predictions.predicted[row]],
            "confidence": float(predictions.confidence[row]),
        }
        for row in ranked
    ]


def _confidence(predictions: Predictions) -> dict[str, Any]:
    """Return the report's `temperature`, None where images have several, `reliability`, `coverage` and `before`.

    The last is of the probabilities before they were scaled, or None where none was.
    """
    temperatures = np.unique(predictions.temperature)
    before = None
    if (temperatures != 1).any():
        probabilities = scaled(predictions.probabilities, 1 / predictions.temperature)
        unscaled = Scores(predictions.truth, predictions.predicted, probabilities)
        before = {
            **values_of(unscaled, [METRICS.get("log_loss"), METRICS.get("calibration_error")]),
            "reliability": reliability(unscaled.confidence, unscaled.correct),
        }
    return {
        "temperature": float(temperatures[0]) if len(temperatures) == 1 else None,
        "reliability": reliability(predictions.confidence, predictions.correct),
        "coverage": coverage_table(predictions.confidence, predictions.correct),
        "before": before,
    }


def _threshold(predictions: Predictions, threshold: float | None, target: float | None) -> dict[str, Any] | None:
    """Count predictions below a threshold of confidence, of all classes and of each, and summarise the rest.

    Without a threshold, it is the one that leaves the target error, on validation where there are such predictions.
    """
    chosen_on = "given"
    if threshold is None:
        if target is None:
            return None
        basis = predictions.validation or predictions
        chosen_on = "validation" if predictions.validation else predictions.split
        threshold = threshold_for(basis.confidence, basis.correct, target)
        if threshold is None:
            least = float(risk_coverage(basis.confidence, basis.correct)[2].min())
            raise InputError(f"--target-error {target:g}: no threshold reaches it (the least error is {least:.3g})")
    certain = predictions.confidence >= threshold
    classes = {}
    for index, name in enumerate(predictions.classes):
        of_class = predictions.truth == index
        classes[name] = {"support": int(of_class.sum()), "uncertain": int((of_class & ~certain).sum())}
    return {
        "value": threshold,
        "chosen_on": chosen_on,
        "uncertain": int((~certain).sum()),
        "classes": classes,
        "rest": summary_of(predictions.subset(certain)) if certain.any() else None,
    }


def report_sections(
    report: dict[str, Any], columns: Sequence[str], plots: Mapping[str, Figure], explanations: Mapping[str, str]
) -> list[Block]:
    """Lay out the report of one run, with its audit and its plots where it has any; without columns, all metrics."""
    blocks: list[Block] = [Paragraph(f"left out: {line}", "warning") for line in report["left_out"]]
    if report["composites"]:
        text = f"{report['composites']:,} of {report['n']:,} images are composites: the figures are not of real images"
        blocks.append(Paragraph(f"{text} alone", "warning"))
    units = f"{report['groups']:,} groups" if report["groups"] < report["n"] else "images"
    note = f"Intervals by a bootstrap over {units}."
    if report["groups"] == 1:
        note = "No intervals: all images are of one group, which says nothing of others."
    blocks += [
        Section("Metrics", [_metric_table(report, metrics_of(names=columns)), Paragraph(note, "soft")]),
        Section("Classes", [_class_table(report["classes"])]),
        Section("Confusion matrix", [Matrix(report["confusion"]["classes"], report["confusion"]["matrix"])]),
        *_error_sections(report, explanations),
        *_confidence_sections(report),
    ]
    if "prediction_sets" in report:
        blocks.append(_set_section(report["prediction_sets"]))
    if "by" in report:
        blocks.append(_subgroup_section(report["by"]))
    if curves := [plots[name] for name in ("reliability", "coverage", "roc", "precision-recall") if name in plots]:
        blocks.append(Section("Curves", [Pictures(curves)]))
    if report["threshold"]:
        blocks.append(_threshold_section(report["threshold"], report["n"]))
    if "audit" in report:
        blocks.append(_audit_section(report["audit"], report))
    if "learning-curves" in plots:
        blocks.append(Section("Training", [Pictures([plots["learning-curves"]], wide=True)]))
    return blocks


def exact_metrics(report: dict[str, Any], columns: Sequence[str]) -> Table:
    """Return metrics with their intervals in full, for papers and spreadsheets."""
    rows = []
    for metric in metrics_of(names=columns):
        values = (report[metric.name], *(report["intervals"][metric.name] or (None, None)))
        rows.append([metric.title, *map(exact_text, values)])
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
    return _metric_table(summary, metrics_of("confusion", "summary"), f"{title}: {summary['n']:,}", whole)


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


def _error_sections(report: dict[str, Any], explanations: Mapping[str, str]) -> list[Block]:
    pairs = [f"{p['label']} as {p['predicted']}: {p['count']:,} ({p['share']:.0%})" for p in report["confused"]]
    if not pairs:
        return []
    errors = Errors(report["wrongest"], explanations)
    return [Section("Most frequent confusions", [Items(pairs)]), Section("Errors of highest confidence", [errors])]


def _confidence_sections(report: dict[str, Any]) -> list[Block]:
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


def _threshold_section(threshold: dict[str, Any], count: int) -> Section:
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


def _set_section(sets: dict[str, Any]) -> Section:
    ends = sets["interval"]
    interval = f" ({ends[0]:.1%} to {ends[1]:.1%})" if ends else ""
    sizes = ", ".join(f"{count:,} of {size}" for size, count in sets["sizes"].items())
    text = f"{sets['covered']:.1%}{interval} of the sets hold the true class; wanted: {sets['wanted']:.1%}."
    rows = [
        [name, f"{row['support']:,}", f"{row['covered']:.1%}", f"{row['mean_size']:.2f}"]
        for name, row in sets["classes"].items()
    ]
    return Section(
        "Prediction sets",
        [
            Paragraph(f"{text} Classes in a set: {sets['mean_size']:.2f} on average ({sizes})."),
            Table(["class", "images", "true class in set", "classes in set"], rows),
            Paragraph("This holds for images like those of validation, not for those of another laboratory.", "soft"),
        ],
    )


def _subgroup_section(by: dict[str, Any]) -> Section:
    metrics = metrics_of("confusion", "summary")
    rows: list[list[Cell | str]] = []
    for subgroup in by["subgroups"]:
        cells: list[Cell | str] = [subgroup["name"], f"{subgroup['n']:,}"]
        for metric in metrics:
            ends = subgroup["intervals"][metric.name]
            cells.append(Cell(value_text(subgroup[metric.name]), f"{ends[0]:.2f}–{ends[1]:.2f}" if ends else ""))
        rows.append(cells)
    blocks: list[Block] = [Table([by["key"], "images", *(metric.title for metric in metrics)], rows)]
    if by["without"]:
        blocks.append(Paragraph(f"{counted(by['without'], 'image')} without {by['key']}", "warning"))
    return Section(f"By {by['key']}, lowest balanced accuracy first", blocks)


def _audit_section(audit: dict[str, Any], report: dict[str, Any]) -> Section:
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
