"""Fault campaign: commands killed, starved of disk, set upon one folder together; what they leave is whole."""

import os
import random
import shutil
import signal
import subprocess

import pytest
from conftest import TINY, contents, preloaded_wbctool, read_records, write_records

pytestmark = pytest.mark.slow
FEW = ("band", "monocyte", "lymphocyte")
UNLIKE = ("run.json", "history.jsonl", "curves.png")  # they hold times


@pytest.fixture(scope="module")
def place(drawn, masks, cells, run_folder, tmp_path_factory):
    """What commands are given."""
    folder = tmp_path_factory.mktemp("campaign")
    records = [
        {**record, **{key: str((cells / record[key]).resolve()) for key in ("path", "mask", "source")}}
        for record in read_records(cells / "records.jsonl")
        if record["label"] in FEW and "value" in record
    ]
    write_records(folder / "cells.jsonl", records)
    split = [record for record in read_records(masks.parent / "split.jsonl") if record["label"] in FEW]
    write_records(folder / "split.jsonl", split)
    for label in FEW:
        shutil.copytree(drawn / "images" / label, folder / "images" / label)
    return {
        "images": str(folder / "images"),
        "split": str(folder / "split.jsonl"),
        "cells": str(folder / "cells.jsonl"),
        "run": str(run_folder),
        "tiny": " ".join(TINY),
    }


COMMANDS = {
    "enhance": "enhance {images} -o {out} --clahe --jobs 1",
    "segment": "segment {images} -o {out} --overlay --jobs 1",
    "split": "split {split} -o {out}/split.jsonl --near-duplicates",
    "naturalize": "naturalize {split} -o {out} --add 2 --jobs 1",
    "crop": "crop {split} -o {out} --which all --jobs 1",
    "train": "train {cells} -o {out} {tiny} --epochs 2 --frozen-epochs 1 --size 32",
    "predict": "predict {run} {cells} -o {out}/p.jsonl --device cpu",
    "explain": "explain {run} {cells} -o {out} --split all --device cpu --sheet 2",
    "xgboost-fuse": "xgboost-fuse {run} {cells} -o {out} --morphology --start none --rounds 20 --device cpu --jobs 1",
    "evaluate": "evaluate {run} --html {out}/page.html",
}


def started(place, name, folder, out="out", **env):
    """The command at work in a folder, so that its output is called the same wherever it is."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [preloaded_wbctool(), *COMMANDS[name].format(**place, out=out).split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
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


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """By a command's name, what it makes undisturbed; and, as `events`, how many changes of files that takes."""
    folder, made, events = tmp_path_factory.mktemp("whole"), {}, {}

    def of(name):
        if name not in made:
            code, said = ended(started(place, name, folder / name, EVENTS=str(folder / f"{name}.txt")))
            assert code == 0, said
            events[name] = int((folder / f"{name}.txt").read_text())
            made[name] = contents(folder / name, UNLIKE)
        return made[name]

    of.events = events
    return of


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_between_changes_of_files_a_command_ends_in_the_same_bytes(place, whole, tmp_path, campaign, name):
    chance = random.Random(name)
    undisturbed = whole(name)
    kills = rounds = 0
    while kills < 10:
        folder = tmp_path / str(rounds)
        rounds += 1
        for _ in range(10 - kills):
            moment = chance.randint(1, whole.events[name])
            code, said = ended(started(place, name, folder, KILL_AT=str(moment)))
            if code == 0:  # what was left to do took fewer changes
                break
            assert code == -signal.SIGKILL % 256, said
            kills += 1
        code, said = ended(started(place, name, folder))
        assert code == 0, said
        assert contents(folder, UNLIKE) == undisturbed, name
        assert not leftovers(folder)
    campaign("kill -9 of a command between two changes of files, then the same bytes", kills)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_nothing_is_lost(place, whole, tmp_path, campaign, name):
    code, said = ended(started(place, name, tmp_path / "full", FILE_SIZE_LIMIT="3000"))
    assert code in (3, 5), said
    last = said.splitlines()[-1]
    assert last.startswith("wbctool: "), said
    assert "File too large" in last or "No space" in last, said
    code, said = ended(started(place, name, tmp_path / "full"))
    assert code == 0, said
    assert contents(tmp_path / "full", UNLIKE) == whole(name)
    assert not leftovers(tmp_path / "full")
    campaign("commands on a full disk, then the same bytes", 1)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_is_read_only_is_one_line(place, tmp_path, campaign, name):
    code, said = ended(started(place, name, tmp_path, "/proc/wbctool"))  # where root may not write either
    assert code == 3, said
    assert "/proc" in said.splitlines()[-1]
    (tmp_path / "file").write_text("mine")
    code, said = ended(started(place, name, tmp_path, tmp_path / "file"))
    assert code in (2, 3), said
    assert (tmp_path / "file").read_text() == "mine"
    campaign("commands where nothing can be written", 2)


@pytest.mark.parametrize("name", COMMANDS)
def test_two_commands_on_one_folder_do_not_meet(place, whole, tmp_path, campaign, name):
    both = [started(place, name, tmp_path / "two") for _ in range(2)]
    refused = 0
    for code, said in map(ended, both):
        assert code == 0 or (code == 3 and "another command is" in said), said
        refused += code != 0
    assert contents(tmp_path / "two", UNLIKE) == whole(name)
    assert not leftovers(tmp_path / "two")
    campaign("commands started twice at once", 1)
    campaign("of these refused", refused)
