"""`wbctool split`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wbctool.commands.options import (
    AllowSynthetic,
    Inputs,
    Json,
    Quiet,
    Seed,
    SelectionOptions,
    SkipBad,
    new_app,
    with_options,
)

if TYPE_CHECKING:
    from wbctool.records import Record

app = new_app()

SHOWN = 5  # images that cannot be read, by name


@app.command(
    epilog="Example:  wbctool split masks/ --ratio 70/15/15 > split.jsonl\n\n"
    "Cross-validation: for i in 1 2 3 4 5; do wbctool split cells/ --folds 5 --fold $i > fold-$i.jsonl; done"
)
@with_options
def split(
    inputs: Inputs,
    selection: SelectionOptions,
    ratio: Annotated[
        str | None,
        typer.Option(metavar="TRAIN/VAL/TEST", help="Shares; two numbers are train/test. (70/15/15)"),
    ] = None,
    folds: Annotated[int | None, typer.Option(metavar="K", help="K folds in place of --ratio.")] = None,
    fold: Annotated[int | None, typer.Option(metavar="I", help="With --folds: the fold that tests. (1)")] = None,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Look at the images, and keep copies of one on one side.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also into a file.")] = None,
    allow_synthetic: AllowSynthetic = False,
    seed: Seed = 0,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Add train, val and test to records: stratified by class, no group parted."""
    from wbctool.console import emit, note, records_wanted, table, warn
    from wbctool.errors import DONE, SOME_FAILED, InputError, UsageProblem
    from wbctool.inputs.folders import read_inputs
    from wbctool.records import ERROR, SPLITS, group_of, to_line
    from wbctool.records.assignment import parse_ratio
    from wbctool.records.composites import is_composite, refuse_unsplit
    from wbctool.records.selection import Tally
    from wbctool.records.splits import add_folds, add_splits, check_folds
    from wbctool.records.storage import atomic

    if out and out.is_dir():
        raise UsageProblem(f"-o {out}: is a folder; the records go to a file, such as {out / 'split.jsonl'}")
    shares = parse_ratio(ratio or "70/15/15")
    percent = sum(float(part) for part in ratio.split("/")) if ratio else 100
    if 50 < percent < 200 and abs(percent - 100) > 1:  # likely meant to be 100; 4/1/1 is not
        taken = "/".join(f"{100 * share:.1f}" for share in shares.values())
        warn(f"--ratio {ratio} adds up to {percent:g}, not 100; taken as {taken}")
    if folds is None and fold is not None:
        raise UsageProblem("--fold goes with --folds")
    if folds is not None and ratio is not None:
        raise UsageProblem("--folds takes the place of --ratio; give one of them")
    if folds is not None:
        check_folds(folds, fold or 1)
    tally = Tally()
    records = list(read_inputs(inputs, selection.selection(), tally))
    if all(record["schema"] == ERROR for record in records):
        why = f" ({tally.damages[0]})" if tally.damages else ""
        raise InputError(f"{', '.join(inputs)}: no images or records to split{why}")
    if not allow_synthetic:
        refuse_unsplit(records)
    unread = 0
    if near_duplicates:
        records, unread = _with_copies_joined(records, quiet)
    done = add_folds(records, folds, fold or 1, seed) if folds is not None else add_splits(records, shares, seed)
    if out:
        with atomic(out, "w") as stream:
            stream.writelines(to_line(record) + "\n" for record in done)
    if records_wanted(json):
        for record in done:
            emit(record)
    samples = [record for record in done if record["schema"] != ERROR]
    names = [name for name in SPLITS if folds or shares.get(name)]
    classes = sorted({record.get("label") or "(no label)" for record in samples})
    counts = {
        label: [
            sum(r["split"] == name and (r.get("label") or "(no label)") == label for r in samples) for name in names
        ]
        for label in classes
    }
    for label in classes:
        missing = [name for name, count in zip(names, counts[label], strict=True) if not count]
        if missing and not quiet:
            warn(f"class {label} has no image in {', '.join(missing)}: too few groups")
    held = sum(is_composite(record) and record["split"] != "train" for record in samples)
    if held:
        warn(f"{held:,} composites are in validation or test: figures of them say nothing of real images")
    if not quiet:
        for line in (*tally.failures(), *tally.notes()):
            note(line)
    if not records_wanted(json):
        groups = [len({group_of(r) for r in samples if r["split"] == name}) for name in names]
        rows = [(label, *counts[label]) for label in classes]
        rows.append(("groups", *groups))
        table(f"{len(samples):,} records", ("class", *names), rows)
        if out:
            note(f"the records are in {out}")
        else:
            note("the records themselves go to a file: add `-o split.jsonl` or `> split.jsonl`")
    failed = (tally.counts["damaged"] or unread) and not skip_bad
    raise typer.Exit(SOME_FAILED if failed else DONE)


def _with_copies_joined(records: list[Record], quiet: bool) -> tuple[list[Record], int]:
    """The records with copies in one group, and how many images cannot be looked at."""
    from wbctool.console import Progress, note, warn
    from wbctool.errors import InputError
    from wbctool.imaging.duplicates import COPIES_UP_TO, find_duplicates
    from wbctool.records import ERROR
    from wbctool.splitting.near_duplicates import join_duplicates

    samples = [record for record in records if record["schema"] != ERROR]
    with Progress("near-duplicates", "images", quiet, total=len(samples)) as progress:
        found = find_duplicates([record["path"] for record in samples], on_image=progress.step)
    if len(found.failed) == len(samples):
        raise InputError(f"--near-duplicates: none of the images can be read (first: {found.failed[0]})")
    for number, why in list(found.failed.items())[:SHOWN]:
        warn(f"not compared: {why}" if samples[number]["path"] in why else f"{samples[number]['path']}: {why}")
    if len(found.failed) > SHOWN:
        warn(f"not compared: {len(found.failed) - SHOWN:,} more images that cannot be read")
    families = found.families
    joined = iter(join_duplicates(samples, families))
    done = [record if record["schema"] == ERROR else next(joined) for record in records]
    if not quiet:
        copies = len(samples) - len(set(families.tolist()))
        note(f"{copies:,} of {len(samples):,} images are near-duplicates of another; copies of one image stay together")
        if not found.turned:
            note(f"more than {COPIES_UP_TO:,} images: only upright, mirrored and quarter-turned copies were looked for")
    return done, len(found.failed)
