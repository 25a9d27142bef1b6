"""`wbctool demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wbctool.commands.options import Out, Quiet, Seed, new_app

app = new_app()


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
    import shlex
    import subprocess
    import sys

    from wbctool.console import note
    from wbctool.drawing import write_set
    from wbctool.pipeline.output_folder import check_settings
    from wbctool.records.storage import write_json

    made = {"command": "demo", "settings": {"per_class": per_class, "seed": seed}}
    check_settings(out, "run.json", made)
    if not (out / "smears" / "truth" / "records.jsonl").exists():
        if not quiet:
            note(f"drawing {8 * per_class} smear images and their truth into {out}/smears")
        write_json(out / "run.json", made)
        write_set(out / "smears", per_class, seed=seed)

    silent = ("-q",) if quiet else ()

    def run(*words: str, into: Path | None = None) -> None:
        line = shlex.join(["wbctool", *words])
        sys.stdout.write(f"\n$ {line}{f' > {shlex.quote(str(into))}' if into else ''}\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", "wbctool", *words, *silent]
        shown = words[0] == "evaluate" or sys.stdout.isatty()
        with open(into or "/dev/null", "wb") as stream:
            done = subprocess.run(command, check=False, stdout=None if shown and not into else stream)
        if done.returncode:
            raise typer.Exit(done.returncode)

    place = {name: str(out / name) for name in ("masks", "cells", "run")}
    run("segment", str(out / "smears" / "images"), "-o", place["masks"])
    run("split", place["masks"], "--ratio", "4/1/1", "--group-regex", r"s(\d+)_", into=out / "split.jsonl")
    run("crop", str(out / "split.jsonl"), "-o", place["cells"], "--size", "96")
    run(
        *("train", place["cells"], "-o", place["run"], "--backbone", "resnet10t", "--weights", "none"),
        *("--size", "96", "--batch-size", "8", "--epochs", "20", "--seed", str(seed)),
    )
    run("predict", place["run"], place["cells"], "-o", str(out / "predictions.jsonl"))
    run("evaluate", str(out / "predictions.jsonl"))
    print(
        f"\nLook at\n"
        f"  {out}/smears/images/   the smears, and {out}/smears/truth/ what is in them\n"
        f"  {out}/masks/           label images, with a record of each in records.jsonl\n"
        f"  {out}/cells/           one crop per cell\n"
        f"  {out}/run/curves.png   how training went\n"
        f"and try the same lines on your own folder (one folder per class)."
    )
