"""`wbctool naturalize`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.options import ExecutionOptions, Inputs, Out, Seed, SelectionOptions, new_app, with_options

app = new_app()


@dataclass(frozen=True)
class Fields(SelectionOptions):
    """Every class gives fields and red cells, whichever composites are made of."""

    classes: Annotated[str | None, typer.Option(metavar="A,B", help="Make composites of these classes only.")] = None


@app.command(
    epilog="Example:  wbctool naturalize split.jsonl -o grown/ --balance-to 200\n\n"
    "Only images of the training split are used. OUT/pool holds the cut-outs: look, remove what is bad, "
    "and run again with --overwrite."
)
@with_options
def naturalize(
    inputs: Inputs,
    out: Out,
    selection: Fields,
    execution: ExecutionOptions,
    add: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="So many of each class; 0: only the pool.")
    ] = None,
    balance_to: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="What each class lacks from N training images.")
    ] = None,
    named: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="As the paper's sets: 419-pmy, 1k, 2k, 1k-class.")
    ] = None,
    algorithm: Annotated[
        str, typer.Option(metavar="natural|paper", help="Real fields with another cell; or Algorithm 1 as published.")
    ] = "natural",
    rbc: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Red cells. (as the real field has; paper 8)")
    ] = None,
    pool: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the cut-outs are kept. (OUT/pool)")] = None,
    seed: Seed = 0,
) -> None:
    """Make composites of real cut-outs, with exact masks, for training only."""
    from dataclasses import replace

    from wbctool.console import note, records_wanted, table, warn
    from wbctool.errors import InputError, UsageProblem
    from wbctool.inputs.folders import read_inputs
    from wbctool.naturalizing.plan import (
        ALGORITHMS,
        BALANCED_TO,
        amounts,
        check_cells,
        for_training,
        planned,
        refuse_inside,
    )
    from wbctool.naturalizing.pool import read_pool
    from wbctool.naturalizing.step import composite_step, make_pool
    from wbctool.pipeline.runner import folder_for, run_records
    from wbctool.pipeline.source import names_of
    from wbctool.pipeline.step import Outcome, parse_shard
    from wbctool.records.selection import Tally

    if algorithm not in ALGORITHMS:
        raise UsageProblem(f"--algorithm {algorithm}: choose from {', '.join(ALGORITHMS)}")
    how, place, tally = execution.execution(), pool or out / "pool", Tally()
    parse_shard(how.shard)
    if place.resolve() == out.resolve():
        raise UsageProblem(f"--pool {place}: is the output folder itself; give another")
    real, left_out = for_training(read_inputs(inputs, replace(selection, classes=None).selection(), tally))
    counts = Counter(record["label"] for record in real if record.get("label") is not None)
    classes = [name.strip() for name in (selection.classes or "").split(",") if name.strip()]
    wanted = amounts(counts, add, balance_to, named, classes)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder with -o")
    refuse_inside(real, inputs, {"-o": out, "--pool": place})
    if not wanted and add != 0 and not how.quiet:
        note(f"nothing to make: no class has fewer than {balance_to or BALANCED_TO:,} training images")
    make_pool(real, place, replace(how, shard=None, overwrite=False))
    parts = read_pool(place)
    if not how.quiet:
        for line in (*tally.notes(), *(f"{n:,} {what} left out" for what, n in left_out.items())):
            note(line)
        if not any("split" in record for record in real):
            warn("the records have no split: cells of these composites are in whatever you test on; split first")
        if parts.left_out:
            reasons = "; ".join(f"{n:,}: {reason}" for reason, n in parts.reasons().most_common(3))
            note(f"{len(parts.left_out):,} images are not in the pool ({reasons}); see {place}/left-out.csv")
        if parts.pruned:
            note(f"{parts.pruned:,} parts of the pool were removed by hand")
    check_cells(parts, counts, wanted, red_cells=algorithm == "paper" and rbc != 0)
    rows = [
        (label, counts[label], len(parts.subjects.get(label, ())), wanted.get(label, 0)) for label in sorted(counts)
    ]
    again = [f"{label} {_uses(cells, new)}" for label, _, cells, new in rows if new > cells]
    if again and not how.quiet:
        note(f"fewer cells than composites, each is used so often: {', '.join(again)}")
    outcome = Outcome(skip_bad=how.skip_bad)
    if wanted:
        settings = {"inputs": names_of(inputs), "amounts": wanted, "algorithm": algorithm, "rbc": rbc, "seed": seed}
        step = composite_step(parts, out, settings, how.overwrite)
        plan = planned(parts, wanted, algorithm, rbc, seed, out.resolve())
        outcome = run_records(step, plan, folder_for(step, out, how), how, total=sum(wanted.values()))
    if not records_wanted(how.json):
        shown = [(label, *(f"{n:,}" for n in found), _uses(*found[1:])) for label, *found in rows]
        title = f"{out}: composites of {len(parts.pieces):,} fields"
        table(title, ("class", "real", "cells", "new", "each used"), shown)
    outcome.failed += parts.failed + tally.counts["damaged"]
    raise typer.Exit(outcome.exit_code)


def _uses(cells: int, new: int) -> str:
    """How often each cell of a class is used."""
    if not new:
        return ""
    return f"{new // cells}–{-(-new // cells)} ×" if new % cells else f"{new // cells} ×"
