"""`wbctool demo`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.options import Out, Quiet, Seed, new_app

app = new_app()

LOOK_AT = """
Look at
  {out}/smears/images/   the smears, and {out}/smears/truth/ what is in them
  {out}/masks/           label images, with a record of each in records.jsonl
  {out}/cells/           one crop per cell
  {out}/run/curves.png   how training went
and try the same lines on your own folder (one folder per class)."""


@app.command(epilog="Example:  wbctool demo -o demo/\n\nTakes about a minute on two cores; needs no data and no GPU.")
def demo(
    out: Out,
    per_class: Annotated[
        int, typer.Option(min=6, max=1000, metavar="N", help="Smear images of each of the 8 classes.")
    ] = 24,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Draw a small synthetic smear set and run segment, crop, split, train, predict, evaluate on it."""
    from wbctool.console import note
    from wbctool.drawing import write_set
    from wbctool.pipeline.output_folder import check_settings
    from wbctool.records.storage import write_json

    run = {"command": "demo", "settings": {"per_class": per_class, "seed": seed}}
    check_settings(out, "run.json", run)
    if not (out / "smears" / "truth" / "records.jsonl").exists():
        if not quiet:
            note(f"drawing {8 * per_class} smear images and their truth into {out}/smears")
        write_json(out / "run.json", run)
        write_set(out / "smears", per_class, seed=seed)
    for words, stdout in _chain(out, seed):
        _run(words, stdout, quiet)
    print(LOOK_AT.format(out=out))


def _chain(out: Path, seed: int) -> Iterator[tuple[list[str], Path | None]]:
    """The arguments of each command, and the file its output goes to."""
    small = f"--backbone resnet10t --weights none --size 96 --batch-size 8 --epochs 20 --seed {seed}".split()
    masks, cells, run, split = (str(out / name) for name in ("masks", "cells", "run", "split.jsonl"))
    predictions = str(out / "predictions.jsonl")
    yield ["segment", str(out / "smears" / "images"), "-o", masks], None
    yield ["split", masks, "--ratio", "4/1/1", "--group-regex", r"s(\d+)_"], Path(split)
    yield ["crop", split, "-o", cells, "--size", "96"], None
    yield ["train", cells, "-o", run, *small], None
    yield ["predict", run, cells, "-o", predictions], None
    yield ["evaluate", predictions], None


def _run(words: list[str], stdout: Path | None, quiet: bool) -> None:
    """Show a command line and run it; its records are shown on a terminal only."""
    import shlex
    import subprocess
    import sys

    line = shlex.join(["wbctool", *words])
    print(f"\n$ {line}{f' > {shlex.quote(str(stdout))}' if stdout else ''}", flush=True)
    command = [sys.executable, "-m", "wbctool", *words, *(["-q"] if quiet else [])]
    shown = not stdout and (words[0] == "evaluate" or sys.stdout.isatty())
    with open(stdout or "/dev/null", "wb") as stream:
        done = subprocess.run(command, check=False, stdout=None if shown else stream)
    if done.returncode:
        raise typer.Exit(done.returncode)
