"""Folder steps as people use them: pipes, reruns, kills, bad files, jobs and shards."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import PBC_REGEX, contents, in_shell, preloaded_wbctool

WBCTOOL = [sys.executable, "-m", "wbctool"]


def start(*words, **more):
    def heeds_interrupts():  # which a shell's background jobs, and so their children, do not
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        [*WBCTOOL, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeds_interrupts,
        **more,
    )


def without(records, *keys):
    return [{k: v for k, v in record.items() if k not in keys} for record in records]


def test_the_chain_of_pipes_ends_in_figures(drawn, run_folder, tmp_path):
    line = (
        f"set -o pipefail; {' '.join(WBCTOOL)} segment {drawn}/images -o {tmp_path}/m -q"
        f" | {' '.join(WBCTOOL)} crop - -o {tmp_path}/c --size 48 -q"
        f" | {preloaded_wbctool()} predict {run_folder} - -q"
        f" | {' '.join(WBCTOOL)} evaluate - --json -q"
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["n"] == 48
    assert {"accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_auc", "mcc"} <= set(report)


def test_stdout_is_records_with_absolute_paths_and_the_folder_holds_relative_ones(drawn, tmp_path):
    done = in_shell("segment", drawn / "images" / "band", "-o", tmp_path / "m")
    assert done.code == 0
    assert [r["id"] for r in done.records] == sorted(r["id"] for r in done.records)
    first = done.records[0]
    assert list(first) == ["schema", "id", "path", "size", "method", "seconds", "mask", "cells"]
    assert os.path.isabs(first["mask"])
    written = json.loads((tmp_path / "m" / "records.jsonl").read_text().splitlines()[0])
    assert written["mask"] == os.path.relpath(first["mask"], tmp_path / "m")
    (tmp_path / "m").rename(tmp_path / "moved")
    again = in_shell("split", tmp_path / "moved", "-q").records
    assert again[0]["mask"] == str(tmp_path / "moved" / written["mask"])


def test_unknown_keys_pass_from_the_first_step_to_the_predictions(drawn, run_folder, tmp_path):
    paths = sorted((drawn / "images" / "monocyte").iterdir())
    lines = [
        json.dumps(
            {"schema": "wbctool.image/1", "id": p.name, "path": str(p), "label": "monocyte", "patient": {"n": 7}}
        )
        for p in paths
    ]
    masks = in_shell("segment", "-", "-o", tmp_path / "m", "-q", stdin="\n".join(lines))
    cells = in_shell("crop", "-", "-o", tmp_path / "c", "--size", 48, "-q", stdin=masks.out)
    done = in_shell("predict", run_folder, "-", "-q", stdin=cells.out)
    assert [record["patient"] for record in done.records] == [{"n": 7}] * len(paths)
    assert all(record["schema"] == "wbctool.prediction/1" for record in done.records)


def test_the_first_record_comes_out_before_the_last_input_is_read(drawn, tmp_path):
    paths = sorted((drawn / "images" / "monocyte").iterdir())
    for jobs in ("1", "2"):
        process = start("segment", "-", "-o", tmp_path / jobs, "--jobs", jobs, stdin=subprocess.PIPE)
        for number, path in enumerate(paths[:2]):
            record = {"schema": "wbctool.image/1", "id": f"{number}.jpg", "path": str(path)}
            process.stdin.write(json.dumps(record) + "\n")
            process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == "0.jpg"
        process.stdin.close()
        assert json.loads(process.stdout.readline())["id"] == "1.jpg"
        assert process.wait() == 0


def test_jobs_and_shards_give_the_same_bytes(drawn, masks, tmp_path):
    two = in_shell("segment", drawn / "images", "-o", tmp_path / "two", "--jobs", 2, "-q")
    assert contents(tmp_path / "two") == contents(masks)
    outs = [in_shell("segment", drawn / "images", "-o", tmp_path / "n", "--shard", f"{i}/3", "-q") for i in (1, 2, 3)]
    assert {done.code for done in outs} == {0}
    pngs = {name: raw for name, raw in contents(tmp_path / "n").items() if name.endswith(".png")}
    assert pngs == {name: raw for name, raw in contents(masks).items() if name.endswith(".png")}
    together = in_shell("split", tmp_path / "n", "-q").records
    assert sorted(r["id"] for r in together) == sorted(r["id"] for r in two.records)
    assert in_shell("segment", drawn / "images", "-o", tmp_path / "n", "--shard", "1/2").code == 2


def test_a_rerun_does_nothing_again_and_gives_the_records_out_again(masks, drawn, tmp_path):
    out = tmp_path / "m"
    shutil.copytree(masks, out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    done = in_shell("segment", drawn / "images", "-o", out)
    assert done.code == 0
    assert "48 images were done before" in done.err
    assert len(done.records) == 48
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.png")} == before
    assert contents(out) == contents(masks)


def test_a_rerun_makes_what_is_missing_changed_or_newly_labelled(drawn, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(drawn / "images" / "band", source)
    out = tmp_path / "m"
    first = in_shell("segment", source, "-o", out, "-q").records
    os.unlink(first[0]["mask"])
    time.sleep(0.01)
    os.utime(first[1]["path"])
    done = in_shell("segment", source, "-o", out, "--label-regex", "_(?P<label>[a-z]+)_")
    assert "4 images were done before" in done.err
    assert {r["label"] for r in done.records} == {"band"}
    fresh = in_shell("segment", source, "-o", tmp_path / "f", "--label-regex", "_(?P<label>[a-z]+)_", "-q")
    assert [list(r) for r in done.records] == [list(r) for r in fresh.records]


def test_other_settings_or_inputs_are_refused_and_overwrite_allows_them(masks, drawn, tmp_path):
    out = tmp_path / "m"
    shutil.copytree(masks, out)
    done = in_shell("segment", drawn / "images", "-o", out, "--method", "cyan-otsu")
    assert done.code == 2
    assert "made with method unet, not with method cyan-otsu" in done.err
    assert contents(out) == contents(masks)
    assert in_shell("segment", drawn / "images" / "band", "-o", out).code == 2
    done = in_shell("segment", drawn / "images", "-o", out, "--method", "cyan-otsu", "--overwrite", "-q")
    assert {record["method"] for record in done.records} == {"cyan-otsu"}


def killed_and_resumed(words, folder, kills, seed):
    """Kill a command again and again between two changes of files; then let it end."""
    done = in_shell(*words, "-o", folder / "w", cwd=folder, env={"EVENTS": str(folder / "events")})
    assert done.code == 0, done.err
    events, chance = int((folder / "events").read_text()), random.Random(seed)
    for _ in range(kills):
        killed = in_shell(*words, "-o", folder / "k", cwd=folder, env={"KILL_AT": str(chance.randint(1, events // 2))})
        assert killed.code != 0
    resumed = in_shell(*words, "-o", folder / "k")
    assert resumed.code == 0, resumed.err
    assert [record["id"] for record in resumed.records] == [record["id"] for record in done.records]
    assert contents(folder / "k") == contents(folder / "w")


@pytest.mark.parametrize("jobs", [1, 2])
def test_segment_killed_ends_in_the_same_bytes(drawn, tmp_path, jobs):
    killed_and_resumed(("segment", drawn / "images", "--jobs", jobs, "-q"), tmp_path, 4, jobs)


def test_crop_killed_ends_in_the_same_bytes(masks, tmp_path):
    words = ("crop", masks, "--kind", "any", "--which", "all", "--jobs", 1, "-q", "--size", 96)
    killed_and_resumed(words, tmp_path, 4, 7)


def test_predict_killed_between_batches_ends_in_the_same_bytes(cli, cells, run_folder, tmp_path, monkeypatch):
    from wbctool.inference import step as inference

    monkeypatch.setattr(inference, "BATCH", 8)
    whole = cli("predict", run_folder, cells, "-o", tmp_path / "whole.jsonl", "-q")
    calls = []
    real = inference.probabilities

    def dies(*arguments):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return real(*arguments)

    for stop in (4, 2):  # noqa: B007 - `dies` reads it; killed, and killed again before it got as far
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(inference, "probabilities", dies)
            assert cli("predict", run_folder, cells, "-o", tmp_path / "k.jsonl", "-q").code == 130
        assert not (tmp_path / "k.jsonl").exists()
    monkeypatch.setattr(inference, "probabilities", lambda *a: calls.append(2) or real(*a))
    calls.clear()
    done = cli("predict", run_folder, cells, "-o", tmp_path / "k.jsonl", "-q")
    assert done.code == 0
    assert len(calls) < 6  # of six batches
    assert done.out == whole.out
    assert (tmp_path / "k.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["k.jsonl", "whole.jsonl"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_at_once_with_one_line_and_the_work_is_kept(drawn, tmp_path, sent, code):
    source = tmp_path / "in"
    for copy in range(8):
        shutil.copytree(drawn / "images", source / str(copy))
    process = start("segment", source, "-o", tmp_path / "m", "--jobs", 2, start_new_session=True)
    for _ in range(40):
        process.stdout.readline()
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    assert "run the same command again" in err
    done = in_shell("segment", source, "-o", tmp_path / "m")
    assert done.code == 0
    assert "were done before" in done.err


def test_the_output_is_made_whole_where_nobody_reads_the_records(drawn, tmp_path):
    line = f"{' '.join(WBCTOOL)} segment {drawn}/images -o {tmp_path}/m | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "still written" in done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert len((tmp_path / "m" / "records.jsonl").read_text().splitlines()) == 48


@pytest.mark.data
@pytest.mark.slow
def test_the_pipeline_of_the_readme_on_real_images(data, tmp_path):
    weights = data / "weights" / "mobilenetv2_100.tf_in1k.safetensors"
    line = (
        f"set -o pipefail; {' '.join(WBCTOOL)} segment {data}/pbc -o {tmp_path}/m --label-regex '{PBC_REGEX}'"
        f" | {' '.join(WBCTOOL)} split - --ratio 70/15/15 > {tmp_path}/split.jsonl"
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 hidden file left out" in done.stderr
    assert "20 images without a label" in done.stderr
    crop = in_shell("crop", tmp_path / "split.jsonl", "-o", tmp_path / "c")
    assert crop.code == 0
    assert len(crop.records) == 1340
    shown = {}
    for record in crop.records:
        shown.setdefault(record.get("label"), []).append(record.get("kind"))
    assert len(shown) == 12
    assert len(shown[None]) == 20
    assert shown["PLATELET"].count("platelet") >= 0.9 * 120
    white = [kind for name, kinds in shown.items() if name != "PLATELET" for kind in kinds]
    assert white.count("wbc") >= 0.99 * len(white)
    train = in_shell(
        "train", tmp_path / "c", "-o", tmp_path / "run", "--backbone", "mobilenetv2_100", "--backbone-arg",
        "pad_type=same", "--weights", weights, "--mean", "0.5", "--std", "0.5", "--size", "96", "--epochs", "3",
    )  # fmt: skip
    assert train.code == 0, train.err
    report = in_shell("evaluate", tmp_path / "run", "--json")
    figures = json.loads(report.out)
    assert figures["n"] == 198
    assert figures["accuracy"] > 0.55
    assert set(without([figures], "schema")[0]["classes"]) == set(shown) - {None}
