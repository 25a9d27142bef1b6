"""Splitting records into train, validation and test, or into folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wbctool.console import warn
from wbctool.errors import InputError, UsageProblem
from wbctool.inputs.protection import refuse_replacing
from wbctool.pipeline.source import Source
from wbctool.records import ERROR, Record, group_of, to_line
from wbctool.records.composites import refuse_unsplit, warning_of_tested
from wbctool.records.selection import Selection
from wbctool.records.splits import parse_ratio
from wbctool.records.storage import atomic
from wbctool.splitting.options import SplitOptions


@dataclass(frozen=True)
class SplitResult:
    """Records with their splits, error records among them; and numbers of images by label, then split, and of groups.

    `failed` is the number of inputs that could not be read.
    """

    records: list[Record]
    images: dict[str, dict[str, int]]
    groups: dict[str, int]
    failed: int

    @property
    def count(self) -> int:
        """The number of images."""
        return sum(sum(counts.values()) for counts in self.images.values())


def split_records(
    inputs: Sequence[str],
    options: SplitOptions | None = None,
    selection: Selection | None = None,
    out: Path | None = None,
    quiet: bool = False,
) -> SplitResult:
    """Add train, val and test to records: stratified by class, every group in one split.

    Args:
        inputs: folders, images, record files, or `-` for records on stdin.
        options: how they are split; by default 70/15/15.
        selection: where labels and groups come from, and which classes are kept.
        out: file to write the records to.
        quiet: show no notes on stderr.

    Raises:
        InputError: there are no images or records, or composites among them.
        UsageProblem: invalid options, or an `out` that is an input.
    """
    options, selection = options or SplitOptions(), selection or Selection()
    if out:
        if out.is_dir():
            raise UsageProblem(f"-o {out}: is a folder; the records go to a file, such as {out / 'split.jsonl'}")
        refuse_replacing("-o", out, [*inputs, *([selection.labels] if selection.labels else [])])
    _warn_of_sum(options.ratio)
    source = Source(inputs, selection)
    records = list(source)
    if all(record["schema"] == ERROR for record in records):
        reason = f" ({source.tally.damages[0]})" if source.tally.damages else ""
        raise InputError(f"{', '.join(inputs)}: no images or records to split{reason}")
    if not options.allow_synthetic:
        refuse_unsplit(records)
    unreadable = 0
    if options.near_duplicates:
        from wbctool.splitting.near_duplicates import group_near_duplicates

        records, unreadable = group_near_duplicates(records, quiet)
    records = options.apply(records)
    if out:
        with atomic(out, "w") as stream:
            stream.writelines(to_line(record) + "\n" for record in records)
    result = _count(records, options.names, source.tally.counts["damaged"] + unreadable)
    if warning := warning_of_tested(records):
        warn(warning)
    if not quiet:
        for label, counts in result.images.items():
            if missing := [name for name, count in counts.items() if not count]:
                warn(f"class {label} has no image in {', '.join(missing)}: too few groups")
        source.print_notes()
    return result


def _warn_of_sum(ratio: str | None) -> None:
    """Warn of a ratio that was probably meant to add up to 100; 4/1/1 was not."""
    percent = sum(float(number) for number in ratio.split("/")) if ratio else 100
    if ratio and 50 < percent < 200 and abs(percent - 100) > 1:
        taken = "/".join(f"{100 * fraction:.1f}" for fraction in parse_ratio(ratio).values())
        warn(f"--ratio {ratio} adds up to {percent:g}, not 100; taken as {taken}")


def _count(records: Sequence[Record], names: Sequence[str], failed: int) -> SplitResult:
    images: dict[str, dict[str, int]] = {}
    groups: dict[str, set[str]] = {name: set() for name in names}
    for record in records:
        if record["schema"] != ERROR:
            images.setdefault(record.get("label") or "(no label)", dict.fromkeys(names, 0))[record["split"]] += 1
            groups[record["split"]].add(group_of(record))
    sizes = {name: len(members) for name, members in groups.items()}
    return SplitResult(list(records), dict(sorted(images.items())), sizes, failed)
