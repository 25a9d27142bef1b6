"""The report as one web page that stands alone: pictures inside, text escaped, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from wbctool import PURPOSE, __version__
from wbctool.errors import ImageError
from wbctool.evaluation.audit import outcome_of, shortfalls
from wbctool.evaluation.brief import BRIEF, with_range
from wbctool.evaluation.plots import parallel_coordinates, plots_of
from wbctool.evaluation.predictions import Predictions
from wbctool.evaluation.report import NAMES, composites_line
from wbctool.evaluation.side_by_side import table_of
from wbctool.imaging.files import read_image
from wbctool.statistics.plots import as_svg, learning_curves

_SIDE = 300  # pixels of a thumbnail, for screens of twice the density
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass
class Section:
    """One run's part of the page.

    Attributes:
        title: its name.
        predictions: of the run.
        report: what `report.to_json` gave of them.
        history: of its training, where that is known.
        best_epoch: the one kept.
        explanations: paths of pictures that explain predictions, by the image's id.
    """

    title: str
    predictions: Predictions
    report: dict[str, Any]
    history: Sequence[dict[str, Any]] = ()
    best_epoch: int = 0
    explanations: Mapping[str, str] = field(default_factory=dict)


def page_of(sections: Sequence[Section], rows: Sequence[dict[str, Any]] = ()) -> str:
    """The whole page.

    Args:
        sections: of one run or several.
        rows: of several, what `side_by_side.compared` gave.
    """
    title = sections[0].title if len(sections) == 1 else f"{len(sections)} runs"
    parts = [_side_by_side(rows)] if rows else []
    for section in sections:
        inner = _section(section)
        parts.append(inner if not rows else f"<details><summary>{escape(section.title)}</summary>{inner}</details>")
    style = files("wbctool.evaluation").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><title>{escape(title)} – evaluation</title>
<style>{style}</style></head><body>
<h1>{escape(title)}</h1>
{"".join(parts)}
<footer>wbctool {escape(__version__)}. {PURPOSE}</footer>
</body></html>
"""


def _section(section: Section) -> str:
    report = section.report
    plots = plots_of(section.predictions, report)
    shown = [plots[name] for name in ("roc", "precision-recall", "reliability", "coverage")]
    parts = [
        _head(report),
        "<h2>Figures</h2>" + _figures(report),
        "<h2>Classes</h2>" + _classes(report),
        "<h2>Confusion</h2>" + _confusion(report["confusion"]) + _confused(report["confused"]),
        f'<h2>Curves and confidence</h2>{_scaling(report)}<div class="plots">{"".join(map(_picture, shown))}</div>',
        _threshold(report["threshold"], report["n"]) if report["threshold"] else "",
        _audit(report) if "audit" in report else "",
        _worst(section),
    ]
    if section.history:
        parts.append(f"<h2>Training</h2>{_picture(learning_curves(section.history, section.best_epoch), 'wide')}")
    return "".join(parts)


def _head(report: dict[str, Any]) -> str:
    which = {"all": "all predictions", "val": "validation", "test": "test"}.get(report["split"], report["split"])
    groups = f", {report['groups']:,} groups" if report["groups"] < report["n"] else ""
    cards = []
    for key, name in BRIEF.items():
        value, spread = with_range(report[key], report["intervals"][key], 3)
        cards.append(f'<div class="card">{escape(name)}<b>{value}</b><span class="soft">{spread}</span></div>')
    left = "".join(f'<p class="bad">left out: {escape(line)}</p>' for line in report["left_out"])
    if report["composites"]:
        left += f'<p class="bad">{escape(composites_line(report))}</p>'
    units = "groups" if groups else "images"
    told = f"95 % intervals, by a bootstrap over {units}." if report["groups"] > 1 else "All images are of one group."
    return (
        f'<p class="soft">{report["n"]:,} images{groups}; {escape(which)}. {told}</p>{left}'
        f'<div class="cards">{"".join(cards)}</div>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of cells that are escaped already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _figures(report: dict[str, Any]) -> str:
    rows = [[escape(name), *with_range(report[key], report["intervals"][key])] for key, name in NAMES.items()]
    return _table(("", "value", "95 % interval"), rows)


def _classes(report: dict[str, Any]) -> str:
    rows = []
    for label, row in report["classes"].items():
        cells = []
        for key in ("precision", "recall", "specificity", "f1"):
            value, spread = with_range(row[key], row["intervals"][key], 3)
            cells.append(f'{value}<span class="range">{spread}</span>')
        rows.append([escape(label), f"{row['support']:,}", *cells])
    return _table(("class", "images", "precision", "recall", "specificity", "F1"), rows)


def _confusion(confusion: dict[str, Any]) -> str:
    classes, matrix = confusion["classes"], confusion["matrix"]
    head = "".join(f'<th><span class="turned">{escape(name)}</span></th>' for name in classes)
    lines = []
    for name, row in zip(classes, matrix, strict=True):
        total = sum(row) or 1
        cells = []
        for count in row:
            share = count / total
            ink = "#fff" if share > 0.5 else "inherit"
            cells.append(f'<td style="background:rgba(11,97,164,{share:.3f});color:{ink}">{count or "·"}</td>')
        lines.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return (
        '<p class="soft">Rows: truth. Columns: predicted. Shade: share of the row.</p><div class="scroll">'
        f'<table class="confusion"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _confused(pairs: Sequence[dict[str, Any]]) -> str:
    items = "".join(
        f"<li>{escape(pair['label'])} as {escape(pair['predicted'])}: {pair['count']:,} ({pair['share']:.0%})</li>"
        for pair in pairs
    )
    return f"<h3>Most confused</h3><ul>{items}</ul>" if items else ""


def _scaling(report: dict[str, Any]) -> str:
    before = report["before"]
    if not before:
        return ""
    rows = [
        [name, f"{before[key]:.4f}", f"{report[key]:.4f}"]
        for key, name in (("calibration_error", "calibration error"), ("log_loss", "log loss"))
    ]
    scaled = f"temperature {report['temperature']:g}" if report["temperature"] else "several temperatures"
    return _table(("", "before scaling", f"after, {scaled}"), rows)


def _threshold(threshold: dict[str, Any], count: int) -> str:
    chosen = {"given": "given", "validation": "chosen on validation"}
    where = chosen.get(threshold["chosen_on"], "chosen on the very images that it is measured on")
    rows = [
        [escape(name), f"{row['uncertain']:,}", f"{row['support']:,}"] for name, row in threshold["classes"].items()
    ]
    rest = threshold["rest"]
    kept = _brief_table(rest, "the rest") if rest else ""
    return (
        f"<h2>Threshold {threshold['value']:.4g}</h2><p>{escape(where)}; {threshold['uncertain']:,} of {count:,} "
        f"predictions are uncertain.</p>{_table(('class', 'uncertain', 'of'), rows)}{kept}"
    )


def _brief_table(found: dict[str, Any], title: str, report: dict[str, Any] | None = None) -> str:
    rows = []
    for key, name in BRIEF.items():
        own = [with_range(report[key], None)[0]] if report else []
        rows.append([escape(name), *own, *with_range(found[key], found["intervals"][key])])
    head = ["", *([f"all {report['n']:,}"] if report else []), f"{escape(title)}: {found['n']:,}", "95 % interval"]
    return _table(head, rows)


def _audit(report: dict[str, Any]) -> str:
    found = report["audit"]
    parts = [f"<h2>Audit</h2><p>Against {found['trained_on']:,} images of {escape(found['of'])}.</p>"]
    parts += [f'<p class="bad">{escape(text)}.</p>' for text in shortfalls(found)]
    for check in found["checks"]:
        mark, words = outcome_of(check, found)
        parts.append(f'<h3 class="{"bad" if mark == "!" else ""}">{escape(check["title"])}: {escape(words)}</h3>')
        if check["without"]:
            title = "where it misleads" if check.get("feature") else "without them"
            parts.append(_brief_table(check["without"], title, report))
        examples = "".join(f"<li>{escape('  =  '.join(example))}</li>" for example in check["examples"])
        parts.append(f"<details><summary>Examples</summary><ul>{examples}</ul></details>" if examples else "")
    return "".join(parts)


def _worst(section: Section) -> str:
    shown = []
    for image in section.report["wrongest"]:
        pictures = _thumbnail(image["path"])
        if image["id"] in section.explanations:
            pictures += _thumbnail(section.explanations[image["id"]])
        shown.append(
            f"<figure>{pictures}<figcaption><b>{escape(image['label'])}</b> taken for "
            f"<b>{escape(image['predicted'])}</b>, {image['confidence']:.3f}<br>"
            f'<span class="soft">{escape(image["id"])}</span></figcaption></figure>'
        )
    if not shown:
        return ""
    return f'<h2>Wrong with most confidence</h2><div class="worst">{"".join(shown)}</div>'


def _thumbnail(path: str) -> str:
    try:
        image = read_image(path)
    except (ImageError, OSError):
        return '<div class="none">image not found</div>'
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}">'


def _picture(figure: Figure, kind: str = "") -> str:
    text = base64.b64encode(as_svg(figure)).decode()
    return f'<img class="{kind}" alt="plot" src="data:image/svg+xml;base64,{text}">'


def _side_by_side(rows: Sequence[dict[str, Any]]) -> str:
    table = table_of(rows, "markdown")
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{"best" if (r, c) in table.bold else ""}">{escape(cell)}</td>' for c, cell in enumerate(row)
        )
        + "</tr>"
        for r, row in enumerate(table.rows)
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    tests = [row["against"]["run"] for row in rows if "against" in row]
    told = (
        f"<p class='soft'>difference: points of accuracy against {escape(tests[0])} on the same images; "
        "p: McNemar's test, corrected for their number (Holm).</p>"
        if tests
        else ""
    )
    return (
        f'<h2>Side by side</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"</div>{told}{_picture(parallel_coordinates(rows), 'wide')}"
    )
