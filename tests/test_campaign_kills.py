"""Fault campaign: commands killed, starved of disk, set upon one folder together; what they leave is whole."""

import os
import random
import resource
import signal
import subprocess
import time

import preloaded
import pytest
from conftest import TINY, contents, read_records, write_records

pytestmark = pytest.mark.slow
UNLIKE = ("run.json", "history.jsonl", "curves.png")  # they hold times


@pytest.fixture(scope="module")
def place(drawn, masks, cells, run_folder, tmp_path_factory):
    """What commands are given, and `wbctool` itself, in forks of a process that has imported torch."""
    folder = tmp_path_factory.mktemp("campaign")
    records = [
        {**record, **{key: str((cells / record[key]).resolve()) for key in ("path", "mask", "source")}}
        for record in read_records(cells / "records.jsonl")
        if record["label"] in ("band", "monocyte", "lymphocyte") and "value" in record
    ]
    write_records(folder / "cells.jsonl", records)
    with preloaded.served(folder / "bin") as program:
        given = {
            "wbctool": str(program),
            "images": str(drawn / "images"),
            "masks": str(masks),
            "split": str(masks.parent / "split.jsonl"),
            "cells": str(folder / "cells.jsonl"),
            "run": str(run_folder),
            "tiny": " ".join(TINY),
        }
        yield given


COMMANDS = {
    "enhance": "enhance {images} -o {out} --clahe --jobs 1",
    "segment": "segment {images} -o {out} --overlay --jobs 2",
    "split": "split {masks} -o {out}/split.jsonl --near-duplicates",
    "naturalize": "naturalize {split} -o {out} --add 3 --jobs 1",
    "crop": "crop {split} -o {out} --which all --jobs 1",
    "train": "train {cells} -o {out} {tiny} --epochs 3 --frozen-epochs 1 --size 32",
    "predict": "predict {run} {cells} -o {out}/p.jsonl --device cpu",
    "explain": "explain {run} {cells} -o {out} --split all --device cpu --sheet 2",
    "xgboost-fuse": "xgboost-fuse {run} {cells} -o {out} --morphology --rounds 20 --device cpu --jobs 1",
    "evaluate": "evaluate {run} --html {out}/page.html",
}


def started(place, name, out, limit=None):
    words = COMMANDS[name].format(**place, out=out).split()
    return subprocess.Popen(
        [place["wbctool"], *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=limit,
    )


def ended(process):
    said = process.communicate(timeout=300)[1]
    assert "Traceback" not in said, said
    assert "bug:" not in said, said
    return process.returncode, said


def leftovers(out):
    return [
        path.name for path in out.rglob(".*") if path.name.startswith((".partial", ".lock", ".records", ".p.jsonl"))
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments_a_command_ends_in_the_same_bytes(place, tmp_path, campaign, name):
    chance = random.Random(name)
    start = time.monotonic()
    code, said = ended(started(place, name, tmp_path / "whole"))
    lasts = time.monotonic() - start
    assert code == 0, said
    undisturbed = contents(tmp_path / "whole", UNLIKE)
    kills = rounds = 0
    while kills < 10:
        out = tmp_path / f"killed-{rounds}"
        rounds += 1
        assert rounds < 20
        for _ in range(5):
            process = started(place, name, out)
            time.sleep(chance.uniform(0.02, lasts))
            if process.poll() is not None:
                ended(process)
                break
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        time.sleep(0.2)  # its own workers find out
        code, said = ended(started(place, name, out))
        assert code == 0, said
        assert contents(out, UNLIKE) == undisturbed, name
        assert not leftovers(out)
    campaign(f"kill -9 of {name} at a random moment, then the same bytes", kills)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_nothing_is_lost(place, tmp_path, campaign, name):
    code, said = ended(started(place, name, tmp_path / "whole"))
    assert code == 0, said
    tried = 0
    for limit in (512, 6_000):
        out = tmp_path / f"full-{limit}"

        def starve(limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        # the limit must hold in the process that writes: not in a fork of another
        process = started({**place, "wbctool": preloaded.alone(tmp_path)}, name, out, starve)
        code, said = ended(process)
        if limit == 512:
            assert code in (3, 5), said
        if code:
            tried += 1
            assert said.splitlines()[-1].startswith("wbctool: "), said
            assert "File too large" in said.splitlines()[-1] or "No space" in said.splitlines()[-1], said
        code, said = ended(started(place, name, out))
        assert code == 0, said
        assert contents(out, UNLIKE) == contents(tmp_path / "whole", UNLIKE)
        assert not leftovers(out)
    campaign(f"{name} on a full disk, then the same bytes", tried)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_is_read_only_is_one_line(place, tmp_path, campaign, name):
    code, said = ended(started(place, name, "/proc/wbctool"))  # where root may not write either
    assert code == 3, said
    assert "/proc" in said.splitlines()[-1]
    (tmp_path / "file").write_text("mine")
    code, said = ended(started(place, name, tmp_path / "file"))
    assert code in (2, 3), said
    assert (tmp_path / "file").read_text() == "mine"
    campaign(f"{name} where nothing can be written", 2)


@pytest.mark.parametrize("name", COMMANDS)
def test_two_commands_on_one_folder_do_not_meet(place, tmp_path, campaign, name):
    code, said = ended(started(place, name, tmp_path / "whole"))
    assert code == 0, said
    refused = 0
    for attempt in range(2):
        out = tmp_path / f"two-{attempt}"
        both = [started(place, name, out) for _ in range(2)]
        for code, said in map(ended, both):
            assert code == 0 or (code == 3 and "another command is" in said), said
            refused += code != 0
        assert contents(out, UNLIKE) == contents(tmp_path / "whole", UNLIKE)
        assert not leftovers(out)
    campaign(f"{name} started twice at once ({refused} refused)", 2)
