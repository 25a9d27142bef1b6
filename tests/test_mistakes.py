"""What people mistype or mistake, and what each command then says."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib

import pytest
from conftest import in_shell, read_records, write_records

from wbctool.errors import BusyError, ImageError
from wbctool.imaging.files import decode, read_labels
from wbctool.pipeline.locks import locked
from wbctool.pipeline.output_folder import OutputFolder


def test_a_class_or_a_renaming_that_no_image_has_is_named(cli, drawn):
    done = cli("split", drawn / "images", "--classes", "band,basofil", "--map", "monocite=x")
    assert all(name in done.err for name in ("--classes basofil", "there are band", "--map monocite"))
    assert {record["label"] for record in done.records} == {"band"}
    assert "--classes" not in cli("split", drawn / "images", "--classes", "band").err.replace("(--classes)", "")


def test_rows_of_a_table_that_match_nothing_are_counted_and_semicolons_are_read(cli, drawn, tmp_path):
    name = sorted((drawn / "images" / "band").iterdir())[0].name
    (tmp_path / "l.csv").write_text(f"image;label\n{name};here\nelsewhere.jpg;there\n")
    done = cli("split", drawn / "images" / "band", "--labels", tmp_path / "l.csv")
    assert [record.get("label") for record in done.records].count("here") == 1
    assert "1 of 2 rows" in done.err
    assert "elsewhere.jpg" in done.err
    assert "--labels gone.csv" in cli("split", drawn / "images", "--labels", "gone.csv").err


def test_a_group_pattern_that_matches_nothing_is_a_warning(cli, drawn):
    assert "--group-regex" in cli("split", drawn / "images", "--group-regex", "q+z").err


def test_a_class_folder_given_by_itself_is_explained(cli, drawn):
    assert "give the folder above it" in cli("split", drawn / "images" / "band").err


def test_images_and_crops_are_no_masks(cli, drawn, cells, tmp_path):
    images = cli("crop", drawn / "images", "-o", tmp_path / "c")
    assert (images.code, "wbctool segment" in images.err) == (3, True)
    again = cli("crop", cells, "-o", tmp_path / "c")
    assert (again.code, "already" in again.err) == (3, True)
    assert not (tmp_path / "c").exists()


def test_the_reasons_of_damaged_lines_are_said_and_old_errors_counted(cli, masks, tmp_path):
    records = [r for r in read_records(masks.parent / "split.jsonl") if r["label"] == "band"]
    error = {"schema": "wbctool.error/1", "id": "x", "path": None, "error": "broken"}
    file = write_records(tmp_path / "r.jsonl", [*records, error])
    with open(file, "a") as stream:
        stream.write("no json\n")
    done = cli("crop", file, "-o", tmp_path / "c", "--size", 16, "--jobs", 1)
    assert done.code == 4
    assert f"failed: {file} line 8: not JSON" in done.err
    assert "1 error records of an earlier step passed on" in done.err


def test_relative_paths_on_stdin_are_explained(cli, masks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = (masks / "records.jsonl").read_text().splitlines()[:2]
    done = cli("crop", "-", "-o", tmp_path / "c", stdin="\n".join(lines))
    assert done.code == 4
    assert "2 records on stdin with relative paths" in done.err


def test_a_terminal_is_no_input():
    import pty

    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "wbctool", "split", "-"], stdin=theirs, capture_output=True, text=True, timeout=60
    )
    os.close(ours)
    assert (done.returncode, "stdin is a terminal" in done.stderr) == (2, True)


def test_split_writes_a_file(cli, drawn, tmp_path):
    done = cli("split", drawn / "images", "-o", tmp_path)
    assert (done.code, f"{tmp_path}/split.jsonl" in done.err) == (2, True)


def test_a_reader_that_goes_away_leaves_the_output_whole(drawn, tmp_path):
    line = f"{sys.executable} -m wbctool segment {drawn}/images -o {tmp_path}/m --method cyan-otsu | head -1"
    done = subprocess.run(["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert "nobody reads the records any more" in done.stderr
    assert len(read_records(tmp_path / "m" / "records.jsonl")) == 48


def test_a_closed_stdout_is_no_fault(drawn, tmp_path):
    line = f"{sys.executable} -m wbctool segment {drawn}/images -o {tmp_path}/m --method cyan-otsu -q >&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_records(tmp_path / "m" / "records.jsonl")) == 48


def test_predictions_of_another_run_are_not_replaced(cli, run_folder, cells, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    assert cli("predict", run_folder, cells, "-o", tmp_path / "p.jsonl", "-q").code == 0
    before = (tmp_path / "p.jsonl").read_bytes()
    refused = cli("predict", other, cells, "-o", tmp_path / "p.jsonl", "-q")
    assert (refused.code, f"holds predictions of {run_folder}" in refused.err) == (2, True)
    assert (tmp_path / "p.jsonl").read_bytes() == before
    assert cli("predict", other, cells, "-o", tmp_path / "p.jsonl", "-q", "--overwrite").code == 0


def test_a_folder_of_run_folders_is_explained(cli, run_folder, cells, tmp_path):
    shutil.copytree(run_folder, tmp_path / "cv" / "fold-1")
    for words in (("evaluate", tmp_path / "cv"), ("predict", tmp_path / "cv", cells)):
        done = cli(*words)
        assert done.code == 3
        assert "holds run folders: give them, such as" in done.err


def test_a_mistyped_command_or_recipe_is_guessed():
    assert "segmnt: no such command; did you mean segment" in in_shell("segmnt", "x").err
    assert "--recipe bset: choose from best" in in_shell("train", "x", "-o", "y", "--recipe", "bset").err


@pytest.mark.parametrize(
    "words", ["train x", "train x -o y --recipe bset", "predict gone x", "explain gone x -o y", "xgboost-fuse x -o y"]
)
def test_mistakes_are_said_before_torch_is_imported(words, drawn, tmp_path):
    code = (
        "import sys\nfrom wbctool.cli import _run\n"
        f"code = _run({[w if w != 'x' else str(drawn / 'images') for w in words.split()]!r}, False)\n"
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split()[1] == "False", done.stderr
    assert done.stdout.split()[0] in "23"


# What readers of the code found.


def test_one_image_alone_has_no_near_duplicates(cli, data, drawn, tmp_path):
    shutil.copytree(drawn / "images" / "band", tmp_path / "in" / "band")
    for path in sorted((tmp_path / "in" / "band").iterdir())[1:]:
        path.unlink()
    done = cli("split", tmp_path / "in", "--near-duplicates")
    assert done.code == 0, done.err
    assert len(done.records) == 1


def test_a_png_without_a_header_and_a_run_of_marker_bytes_are_damaged_at_once():
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    with pytest.raises(ImageError, match="no header"):
        decode(b"\x89PNG\r\n\x1a\n" + end, "x.png")
    start = time.monotonic()
    with pytest.raises(ImageError, match="JPEG"):
        decode(b"\xff\xd8\xff\xda\x00\x02" + b"\xff" * 1_000_000 + b"\0", "x.jpg")
    assert time.monotonic() - start < 2


def test_a_mask_that_claims_to_be_huge_is_damaged(tmp_path):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ImageError, match="not a label image"):
        read_labels(tmp_path / "m.png")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"w": float("nan")}, "NaN and infinity"),
        ({"w": "\ud800"}, "not valid Unicode"),
        ({"cells": [1]}, "cells"),
        ({"nucleus": "x"}, "nucleus"),
        ({"crop": 3}, "crop"),
    ],
)
def test_keys_that_could_not_be_used_or_written_again_are_refused_as_they_are_read(cli, more, said):
    line = json.dumps({"schema": "wbctool.image/1", "id": "a", "path": "/a.png", **more})
    done = cli("split", "-", stdin=f"{line}\n")
    assert done.code == 3
    good = json.dumps({"schema": "wbctool.image/1", "id": "b", "path": "/b.png", "label": "x"})
    done = cli("split", "-", stdin=f"{line}\n{good}\n")
    assert done.code == 4
    assert said in next(r["error"] for r in done.records if r["schema"] == "wbctool.error/1")


def test_a_run_folder_cannot_make_timm_read_files(cli, run_folder, cells, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "model.json").read_text())
    for key in ("checkpoint_path", "pretrained", "pretrained_cfg"):
        changed = {**about, "backbone_args": {key: str(tmp_path / "evil.pth")}}
        (tmp_path / "run" / "model.json").write_text(json.dumps(changed))
        done = cli("predict", tmp_path / "run", cells, "--device", "cpu")
        assert done.code == 3
        assert f"--backbone-arg {key}" in done.err


def test_a_lock_is_taken_on_the_file_that_is_there(tmp_path):
    first = OutputFolder(tmp_path / "out", "segment", {})
    with pytest.raises(BusyError):
        OutputFolder(tmp_path / "out", "segment", {})
    first.finish()
    second = OutputFolder(tmp_path / "out", "segment", {})
    assert not (tmp_path / "out" / "records.jsonl").read_bytes()
    second.finish()
    with locked(tmp_path / "run"), pytest.raises(BusyError, match="another command"), locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_other_damage_is_one_line(cli, run_folder, drawn, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "model.json").write_text("{}")
    assert cli("info", tmp_path / "r").code == 3
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "run.json").write_text('{"command":"segment","settings":null}')
    assert cli("segment", drawn / "images", "-o", tmp_path / "m").code == 3
    (tmp_path / "r.toml").write_text("variants = 3\n")
    assert cli("train", drawn / "images", "-o", tmp_path / "t", "--recipe", tmp_path / "r.toml").code == 3
    assert cli("segment", drawn / "images", "-o", tmp_path / "s", "--shard", "²/8").code == 2
    page = cli("evaluate", run_folder, "--html", run_folder / "predictions.jsonl")
    assert (page.code, "does not end in .html" in page.err) == (2, True)


def test_a_name_that_is_not_utf_8_fails_and_is_named(cli, drawn, tmp_path):
    source = next((drawn / "images" / "band").iterdir())
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(source, folder / "good.jpg")
    try:
        shutil.copy(source, os.fsencode(folder) + b"/bad\xff.jpg")
    except OSError:
        pytest.skip("this file system takes no such name")
    done = cli("segment", folder, "-o", tmp_path / "m", "--method", "cyan-otsu", "--jobs", 1)
    assert done.code == 4
    assert "failed: " in done.err
    assert "bad\\xff.jpg: the path is not UTF-8; rename what is not" in done.err
    assert "of an earlier step" not in done.err
    assert [record["schema"] for record in done.records] == ["wbctool.error/1", "wbctool.mask/1"]


def test_split_names_the_lines_that_it_cannot_read(cli, tmp_path):
    good = {"schema": "wbctool.image/1", "id": "a", "path": "/a.jpg", "label": "x"}
    file = write_records(tmp_path / "r.jsonl", [good])
    with open(file, "a") as stream:
        stream.write("no json\n" * 5)
    done = cli("split", file)
    assert (done.code, len(done.records)) == (4, 6)
    assert f"failed: {file} line 2: not JSON" in done.err
    assert "failed: 2 more inputs" in done.err
    none = cli("split", "-", stdin="no json\n")
    assert (none.code, none.out) == (3, "")
    assert "no images or records to split (stdin line 1: not JSON" in none.err


def test_a_ratio_that_misses_a_hundred_is_said(cli, drawn):
    said = cli("split", drawn / "images", "--ratio", "70/20/20").err
    assert "warning: --ratio 70/20/20 adds up to 110, not 100; taken as 63.6/18.2/18.2" in said
    assert "adds up to" not in cli("split", drawn / "images", "--ratio", "4/1/1").err


def test_a_run_folder_is_no_folder_of_images_finished_or_not(cli, run_folder, tmp_path):
    for words in (("segment", run_folder, "-o", tmp_path / "m"), ("split", run_folder)):
        done = cli(*words)
        assert (done.code, done.out) == (3, "")
        assert f"{run_folder}: is a run folder; give images or records" in done.err
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    (copy / "model.json").unlink()
    run = json.loads((copy / "run.json").read_text())
    del run["finished"]
    (copy / "run.json").write_text(json.dumps(run))
    for words in (("info", copy), ("evaluate", copy), ("segment", copy, "-o", tmp_path / "m")):
        done = cli(*words)
        assert (done.code, done.out) == (3, "")
        assert "not finished" in done.err
        assert "same command again" in done.err


def test_another_method_is_named_first_and_flags_are_said_in_words(cli, masks, drawn, tmp_path):
    out = tmp_path / "m"
    assert cli("segment", drawn / "images" / "band", "-o", out, "--method", "cyan-otsu", "--overlay", "-q").code == 0
    other = cli("segment", drawn / "images" / "band", "-o", out, "--method", "hsv", "--overlay")
    assert (other.code, "made with method cyan-otsu, not with method hsv;" in other.err) == (2, True)
    plain = cli("segment", drawn / "images" / "band", "-o", out, "--method", "cyan-otsu")
    assert (plain.code, "made with overlay, not without overlay;" in plain.err) == (2, True)


def test_a_part_of_a_recipe_s_name_leads_to_it(cli):
    said = cli("train", "x", "-o", "y", "--recipe", "resnet").err
    assert "choose from resnet50-cbam-two-phase, or give a .toml file" in said


def test_what_cannot_be_written_is_named_as_it_was_given(cli, drawn):
    done = cli("split", drawn / "images", "-o", "/proc/split.jsonl")
    assert (done.code, done.err.splitlines()[-1]) == (3, "wbctool: /proc/split.jsonl: No such file or directory")
