"""The section of the report that shows an audit."""

from __future__ import annotations

from typing import Any

from wbctool.evaluation.document import Block, Items, Paragraph, Section
from wbctool.evaluation.subsets import summary_table

_REMEDIES = {
    "near_duplicates": "Next: `wbctool split --near-duplicates`, and train again.",
    "groups": "Next: `wbctool split --group-regex …`, and train again.",
}


def audit_section(audit: dict[str, Any], report: dict[str, Any]) -> Section:
    """Lay out each check with examples, and the metrics with and without the tainted images.

    Args:
        audit: as `audit.audit_of` returns it.
        report: of all images.
    """
    blocks: list[Block] = []
    if audit["not_compared"]:
        text = f"{audit['not_compared']:,} images cannot be read and were not compared"
        blocks.append(Paragraph(text, "warning"))
    if not audit["turned"]:
        text = "too many images to look for copies that are turned (by other than quarters), sheared or cut out"
        blocks.append(Paragraph(text, "warning"))
    for check in audit["checks"]:
        blocks += _check(check, audit, report)
    if sum(bool(check["count"]) for check in audit["checks"][:3]) > 1 and audit["without"]:
        blocks.append(Paragraph(f"All together: {audit['tainted']:,} tainted", "strong"))
        blocks.append(summary_table(audit["without"], "without them", report))
    return Section(f"Audit, against {audit['trained_on']:,} images of {audit['of']}", blocks)


def _check(check: dict[str, Any], audit: dict[str, Any], report: dict[str, Any]) -> list[Block]:
    mark, outcome = "✓", "none"
    if check["count"]:
        mark, outcome = "!", f"{check['count']:,} of {check['of']:,}"
        if check.get("feature"):
            outcome = f"balanced accuracy {check['balanced_accuracy']:.3f}, by chance {check['chance']:.3f}"
    elif check["name"] == "near_duplicates" and audit["not_compared"]:
        mark, outcome = "?", "not all could be looked at"
    blocks: list[Block] = [Paragraph(f"{mark} {check['title']}: {outcome}", "strong" if mark == "!" else "plain")]
    if check["examples"]:
        blocks.append(Items(["  =  ".join(example) for example in check["examples"]], folded=True))
    if check["without"]:
        title = "where it misleads" if check.get("feature") else "without them"
        blocks.append(summary_table(check["without"], title, report))
    if mark == "!" and check["name"] in _REMEDIES:
        blocks.append(Paragraph(_REMEDIES[check["name"]]))
    return blocks
