"""`explain` as people call it: records, panels, sheets, scores, faults, resuming."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import TINY, contents, in_shell, preloaded_wbctool, read_records, write_records

from wbctool.imaging.files import read_image


@pytest.fixture(scope="module")
def cbam(cells, tmp_path_factory):
    """An untrained run with CBAM, on the same cells."""
    out = tmp_path_factory.mktemp("cbam") / "cbam"
    done = in_shell("train", cells, "-o", out, *TINY, "--epochs", 0, "--attention", "cbam")
    assert done.code == 0, done.err
    return out


def test_records_carry_prediction_explanation_scores_and_panel(cli, run_folder, cells, tmp_path):
    methods = ("--method", "gradcam", "--method", "eigencam")
    done = cli("explain", run_folder, cells, "-o", tmp_path / "x", *methods, "--faithfulness", "--maps", "--views", 2)
    assert done.code == 0, done.err
    assert "images of other splits left out (--split)" in done.err
    said = {row["id"]: row for row in cli("predict", run_folder, cells, "-q").records}
    assert done.records
    assert {row["split"] for row in done.records} == {"test"}
    for row in done.records:
        assert row["predicted"] == said[row["id"]]["predicted"]
        assert row["probabilities"] == pytest.approx(said[row["id"]]["probabilities"], abs=1e-4)
        told = row["explain"]
        assert told["class"] == row["predicted"]
        assert told["probability"] == row["confidence"]
        assert told["layers"] == ["layer4"]
        assert told["views"] == 2
        assert told["area"]["cell"] + told["area"]["background"] == pytest.approx(1, abs=1e-5)
        with np.load(row["maps"], allow_pickle=False) as held:
            maps = {name: held[name] for name in held.files}
        assert set(maps) == set(told["methods"]) == {"gradcam", "eigencam"}
        alike = np.corrcoef(maps["gradcam"].ravel(), maps["eigencam"].ravel())[0, 1]
        assert told["agreement"]["gradcam eigencam"] == pytest.approx(alike, abs=1e-4)
        for scores in told["methods"].values():
            energy, other = scores["energy"], scores["swapped"]
            assert other["cell"] + other["background"] == pytest.approx(1, abs=1e-5)
            assert energy["cell"] + energy["background"] == pytest.approx(1, abs=1e-5)
            assert energy.get("nucleus", 0) <= energy["cell"] + 1e-6
            assert 0 < scores["deletion"] < 1
            assert 0 < scores["insertion"] < 1
        assert read_image(row["panel"]).shape == (17 + 8 + 2 * (224 + 34 + 8), 3 * 232 + 8 + 34, 3)
    held = read_records(tmp_path / "x" / "records.jsonl")
    assert not any(os.path.isabs(row["panel"]) or os.path.isabs(row["maps"]) for row in held)
    scores = json.loads((tmp_path / "x" / "scores.json").read_text())
    rows = [row["explain"]["methods"]["gradcam"]["energy"]["cell"] for row in done.records]
    assert scores["images"] == len(rows)
    assert scores["runs"][0]["all"]["energy in cell"] == pytest.approx(np.mean(rows), abs=1e-5)
    assert scores["groups"] == 1  # one slide: nothing can be said of others
    assert scores["runs"][0]["intervals"]["energy in cell"] is None
    right = np.mean([row["label"] == row["predicted"] for row in done.records])
    assert scores["runs"][0].get("right", {"images": 0})["images"] == round(right * len(rows))
    alike = [row["explain"]["agreement"]["gradcam eigencam"] for row in done.records]
    assert scores["runs"][1]["agreement"]["gradcam eigencam"] == pytest.approx(np.mean(alike), abs=1e-5)
    report = cli("evaluate", tmp_path / "x", "--html", tmp_path / "p.html", "--explanations", tmp_path / "x", "--json")
    assert report.code == 0, report.err
    assert json.loads(report.out)["n"] == len(rows)


def test_two_runs_are_compared_on_the_same_class(cli, run_folder, cbam, cells, tmp_path):
    words = (
        "explain",
        run_folder,
        cells,
        "-o",
        tmp_path / "x",
        "--compare",
        cbam,
        "--sheet",
        3,
        "--maps",
        "--views",
        1,
    )
    done = cli(*words)
    assert done.code == 0, done.err
    first = done.records[0]
    assert first["explain"]["compare"]["run"] == str(cbam)
    assert first["explain"]["compare"]["layers"] == ["attention"]
    own = cli("explain", cbam, cells, "-o", tmp_path / "own", "--class", first["predicted"], "--maps", "--views", 1)
    with np.load(first["maps"]) as one, np.load(own.records[0]["maps"]) as other:
        assert set(one.files) == {"gradcam", "compare-gradcam"}
        assert np.array_equal(one["compare-gradcam"], other["gradcam"])
    scores = json.loads((tmp_path / "x" / "scores.json").read_text())
    figure = scores["compared"][0]["figures"]["energy in cell"]
    assert figure["interval"] is None
    energies = [
        [told["methods"]["gradcam"]["energy"]["cell"] for told in (row["explain"]["compare"], row["explain"])]
        for row in done.records
    ]
    known = np.array([pair for pair in energies if None not in pair])
    assert figure["difference"] == pytest.approx((known[:, 0] - known[:, 1]).mean(), abs=1e-5)
    assert 0 <= figure["p"] <= figure["p_holm"] <= 1
    for path in (tmp_path / "x" / "sheets").rglob("*.png"):
        label, side = path.stem, path.parent.name
        number = sum(r["label"] == label and (r["predicted"] == label) == (side == "right") for r in done.records)
        panels = min(3, number)
        height = 17 + 16 + -(-panels // min(2, panels)) * (25 + 266 + 8)
        assert read_image(path).shape[:2] == (height, min(2, panels) * (4 * 232 + 8 + 34 + 8))


def test_a_panel_shows_the_image_the_map_and_both(cli, run_folder, cells, tmp_path):
    record = next(r for r in read_records(cells / "records.jsonl") if r["split"] == "test")
    record = {key: value for key, value in record.items() if key != "mask"}
    source = write_records(cells / "one.jsonl", [record])
    done = cli("explain", run_folder, source, "-o", tmp_path / "x", "--maps")
    source.unlink()
    assert done.code == 0, done.err
    assert "1 images carry no mask" in done.err
    row = done.records[0]
    assert "area" not in row["explain"]
    assert row["explain"]["methods"] == {"gradcam": {}}
    panel = read_image(row["panel"]).astype(int)
    tiles = [panel[25:249, 8 + 232 * n : 232 + 232 * n] for n in range(3)]
    image = cv2.resize(read_image(row["path"]), (224, 224))
    assert np.abs(tiles[0] - image).mean() < 3
    with np.load(row["maps"]) as held:
        hottest = np.unravel_index(cv2.resize(held["gradcam"], (224, 224)).argmax(), (224, 224))
    assert tiles[1][hottest][0] > 100
    assert tiles[1][hottest][2] < 40  # dark red
    with np.load(row["maps"]) as held:
        weight = 0.1 + 0.5 * cv2.resize(held["gradcam"], (224, 224))[..., None]
    assert np.abs(tiles[2] - ((1 - weight) * tiles[0] + weight * tiles[1])).mean() < 3


def test_a_killed_run_ends_in_the_same_bytes(cli, run_folder, cells, tmp_path):
    words = [run_folder, cells, "-o", tmp_path / "x"]
    words += ["--split", "all", "--views", 1, "--method", "scorecam", "--channels", 512]  # batches of 8
    words += ["--classes", "basophil,eosinophil,lymphocyte,monocyte"]
    whole = cli("explain", *words[:2], "-o", tmp_path / "whole", *words[4:])
    assert whole.code == 0, whole.err
    job = subprocess.Popen(
        [preloaded_wbctool(), "explain", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for _ in range(12):
        job.stdout.readline()
    job.send_signal(signal.SIGKILL)
    job.wait()
    time.sleep(0.3)  # the fork it spoke for dies, too
    assert not (tmp_path / "x" / "records.jsonl").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x").rglob("*.png")}
    time.sleep(0.02)
    again = cli("explain", *words)
    assert again.code == 0, again.err
    assert "images were done before" in again.err
    assert any(path.stat().st_mtime_ns == then for path, then in before.items())
    assert contents(tmp_path / "x") == contents(tmp_path / "whole")
    ids = [row["id"] for row in whole.records]
    assert [row["id"] for row in again.records] == ids
    third = cli("explain", *words)
    assert f"{len(ids):,} images were done before" in third.err
    assert contents(tmp_path / "x") == contents(tmp_path / "whole")


def test_shards_together_are_the_whole(cli, run_folder, cells, tmp_path):
    words = ("--split", "all", "--no-panels", "--precision", "float32")
    whole = cli("explain", run_folder, cells, "-o", tmp_path / "whole", *words)
    parts = [cli("explain", run_folder, cells, "-o", tmp_path / "x", "--shard", f"{i}/3", *words) for i in (1, 2, 3)]
    assert all(part.code == 0 for part in parts), parts[0].err
    found = {row["id"]: row for part in parts for row in part.records}
    assert sorted(found) == sorted(row["id"] for row in whole.records)
    assert {path.name for path in (tmp_path / "x").glob("scores*")} == {f"scores-{i}-of-3.json" for i in (1, 2, 3)}
    for row in whole.records:
        energy = found[row["id"]]["explain"]["methods"]["gradcam"]["energy"]
        assert energy["cell"] == pytest.approx(row["explain"]["methods"]["gradcam"]["energy"]["cell"], abs=2e-3)


def test_bad_images_and_masks_become_error_records(cli, run_folder, cells, tmp_path):
    rows = [r for r in read_records(cells / "records.jsonl") if r["split"] == "test"][:5]
    rows = [{**r, "path": str(cells / r["path"]), "mask": str(cells / r["mask"])} for r in rows]
    (tmp_path / "torn.png").write_bytes((open(rows[0]["path"], "rb").read())[:300])
    cv2.imwrite(str(tmp_path / "small.png"), np.ones((20, 20), np.uint8))
    rows[0]["path"] = str(tmp_path / "torn.png")
    rows[1]["mask"] = str(tmp_path / "small.png")
    rows[2]["mask"] = str(tmp_path / "none.png")
    rows[3]["value"] = 77
    rows[3].pop("nucleus", None)
    words = ("explain", run_folder, "-", "-o", tmp_path / "x")
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    done = cli(*words, stdin=lines)
    assert done.code == 4, done.err
    assert [r["id"] for r in done.records] == [r["id"] for r in rows]
    errors = [r.get("error", "") for r in done.records]
    assert "truncated PNG" in errors[0]
    assert "the mask is 20×20, its image 48×48; run `wbctool segment` again" in errors[1]
    assert "none.png" in errors[2]
    assert "has no value 77" in errors[3]
    assert errors[4] == ""
    assert "4 inputs failed" in done.err
    assert cli(*words, "--skip-bad", stdin=lines).code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--method", "cam"), 2, "--method cam: unknown explanation method; choose from attention"),
        (("--method", "attention"), 2, "was trained without CBAM"),
        (("--layer", "layr4"), 2, "--layer layr4: no such layer; near it: layer4"),
        (("--class", "Basophl"), 2, "knows no class Basophl; near it: basophil"),
        (("--channels", "4"), 2, "--channels goes with --method scorecam"),
        (("--split", "dev"), 2, "--split dev: choose from train, val, test, all"),
        (("--sheet", "4", "--shard", "1/2"), 2, "--sheet needs all panels"),
        (("--sheet", "4", "--no-panels"), 2, "--sheet is made of panels"),
        (("--compare", "nothing"), 3, "nothing: no such run folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(cli, run_folder, cells, tmp_path, words, code, message):
    done = cli("explain", run_folder, cells, "-o", tmp_path / "x", *words)
    assert done.code == code
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert not (tmp_path / "x").exists()


def test_inputs_and_outputs_are_not_mistaken(cli, run_folder, cells, tmp_path):
    done = cli("explain", run_folder, run_folder, "-o", tmp_path / "x")
    assert (done.code, "--compare" in done.err) == (2, True)
    done = cli("explain", run_folder, cells, "-o", cells)
    assert (done.code, "nothing is lost" in done.err) == (2, True)
    assert not (cells / ".records.jsonl.part").exists()
    done = cli("explain", cells, cells, "-o", tmp_path / "x")
    assert (done.code, "is no run folder" in done.err) == (3, True)
    (tmp_path / "empty").mkdir()
    done = cli("explain", run_folder, tmp_path / "empty", "-o", tmp_path / "x")
    assert (done.code, "no images or records found" in done.err) == (3, True)
    rows = [{**r, "path": str(cells / r["path"])} for r in read_records(cells / "records.jsonl") if r["split"] == "val"]
    source = write_records(tmp_path / "val.jsonl", [{k: v for k, v in r.items() if k != "mask"} for r in rows])
    done = cli("explain", run_folder, source, "-o", tmp_path / "y")
    assert (done.code, "--split all" in done.err) == (3, True)
    assert cli("explain", run_folder, source, "-o", tmp_path / "z", "--split", "val").code == 0
    done = cli("explain", run_folder, source, "-o", tmp_path / "z", "--split", "val", "--method", "layercam")
    assert (done.code, "made with methods" in done.err) == (2, True)
    done = cli("explain", run_folder, source, "-o", tmp_path / "z", "--split", "val", "--class", "label", "--overwrite")
    assert done.code == 0, done.err
    assert all(row["explain"]["class"] == row["label"] for row in done.records)
    lost = write_records(tmp_path / "lost.jsonl", [{k: v for k, v in rows[0].items() if k not in ("mask", "label")}])
    done = cli("explain", run_folder, lost, "-o", tmp_path / "l", "--split", "all", "--class", "label")
    assert done.code == 4
    assert "its label is None, no class of" in done.records[0]["error"]


def test_names_and_labels_that_are_strange(cli, run_folder, cells, tmp_path):
    folder = tmp_path / "in" / "a\nb <b>é 白"
    folder.mkdir(parents=True)
    record = next(r for r in read_records(cells / "records.jsonl") if r["split"] == "test")
    (folder / "c\nd é.png").write_bytes((cells / record["path"]).read_bytes())
    done = cli("explain", run_folder, tmp_path / "in", "-o", tmp_path / "x", "--sheet", 2)
    assert done.code == 0, done.err
    assert done.records[0]["label"] == folder.name
    assert (tmp_path / "x" / "sheets" / "wrong" / f"{folder.name}.png").exists()


def test_predictions_and_fields_are_explained_too(cli, run_folder, cells, masks, tmp_path):
    said = cli("predict", run_folder, cells, "-q").out
    done = cli("explain", run_folder, "-", "-o", tmp_path / "x", "--no-panels", stdin=said)
    assert done.code == 0, done.err
    assert "area" in done.records[0]["explain"]
    fields = masks.parent / "split.jsonl"
    done = cli("explain", run_folder, fields, "-o", tmp_path / "y", "--no-panels")
    assert done.code == 0, done.err
    assert "images were prepared differently" in done.err
    known = [row["explain"]["area"] for row in done.records if "area" in row["explain"]]
    assert known
    assert all(0 < area["nucleus"] < area["cell"] < 0.9 for area in known)


def test_what_has_changed_is_explained_again(cli, run_folder, cells, tmp_path):
    rows = [r for r in read_records(cells / "records.jsonl") if r["split"] == "test"][:3]
    rows = [{**r, "path": str(cells / r["path"]), "mask": str(cells / r["mask"])} for r in rows]
    source = write_records(tmp_path / "in.jsonl", rows)
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    words = ("explain", run, source, "-o", tmp_path / "x", "--class", "label")
    assert cli(*words).code == 0
    rows[1]["label"] = next(r["label"] for r in rows if r["label"] != rows[1]["label"])
    write_records(source, rows)
    done = cli(*words)
    assert done.code == 0, done.err
    assert "2 images were done before" in done.err
    assert [row["explain"]["class"] for row in done.records] == [row["label"] for row in rows]
    info = json.loads((run / "model.json").read_text())
    info["calibration"] = {"temperature": 3.0}
    (run / "model.json").write_text(json.dumps(info))
    done = cli(*words)
    assert (done.code, "made with models" in done.err) == (2, True)


def test_equal_ids_and_ids_that_lead_out_fail_loudly(cli, run_folder, cells, tmp_path):
    record = next(r for r in read_records(cells / "records.jsonl") if r["split"] == "test")
    record |= {"path": str(cells / record["path"]), "mask": str(cells / record["mask"])}
    source = write_records(tmp_path / "in.jsonl", [record, record, {**record, "id": "../../evil"}])
    done = cli("explain", run_folder, source, "-o", tmp_path / "out" / "x")
    assert done.code == 4
    assert "two inputs have this id" in done.records[1]["error"]
    assert "leads out of the output folder" in done.records[2]["error"]
    assert json.loads((tmp_path / "out" / "x" / "run.json").read_text())["counts"]["failed"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out"}


def test_what_another_run_said_does_not_stay(cli, run_folder, cbam, cells, tmp_path):
    said = cli("predict", cbam, cells, "--threshold", 1, "--tta", "-q").out
    first = cli("explain", cbam, "-", "-o", tmp_path / "x", "--maps", "--views", 1, stdin=said)
    again = cli("explain", run_folder, "-", "-o", tmp_path / "y", "--no-panels", stdin=first.out)
    assert again.code == 0, again.err
    for row in again.records:
        assert row["run"] == str(run_folder)
        assert not {"uncertain", "views", "panel", "maps"} & set(row)


def test_a_refusal_leaves_no_folder_behind(cli, run_folder, cbam, cells, tmp_path):
    done = cli("explain", run_folder, cells, "-o", tmp_path / "x", "--layer", "head")
    assert (done.code, "which is no map" in done.err) == (2, True)
    other = tmp_path / "other"
    shutil.copytree(cbam, other)
    info = json.loads((other / "model.json").read_text())
    info["classes"][0] = "renamed"
    (other / "model.json").write_text(json.dumps(info))
    done = cli("explain", run_folder, cells, "-o", tmp_path / "x", "--compare", other)
    assert (done.code, "knows no class band; give --class" in done.err) == (2, True)
    assert not (tmp_path / "x").exists()
    before = contents(other, leave=())
    done = cli("explain", run_folder, cells, "-o", other, "--overwrite")
    assert (done.code, "is a run folder" in done.err) == (2, True)
    assert contents(other, leave=()) == before


def test_sheets_are_those_of_the_last_run(cli, run_folder, cells, tmp_path):
    words = ("explain", run_folder, cells, "-o", tmp_path / "x", "--sheet", 2)
    assert cli(*words).code == 0
    before = {path.stem for path in (tmp_path / "x" / "sheets").rglob("*.png")}
    assert cli(*words, "--classes", "band", "--overwrite").code == 0
    assert {path.stem for path in (tmp_path / "x" / "sheets").rglob("*.png")} == {"band"} < before


@pytest.mark.slow
def test_memory_is_flat_and_nothing_leaks(run_folder, cells, tmp_path):
    """The second half of many images peaks no higher than the first."""
    rows = [r for r in read_records(cells / "records.jsonl") if "path" in r]
    many = [
        {**r, "id": f"{n}/{r['id']}", "path": str(cells / r["path"]), "mask": str(cells / r["mask"])}
        for n in range(1200 // len(rows))
        for r in rows
    ]
    source = write_records(tmp_path / "many.jsonl", many)
    job = subprocess.Popen(
        [sys.executable, "-m", "wbctool", "explain", run_folder, source, "-o", tmp_path / "x", "--split", "all", "-q"],
        stdout=subprocess.PIPE,
        text=True,
    )
    half = 0
    for number, _ in enumerate(job.stdout, 1):
        if number in (len(many) // 2, len(many) - 64):
            status = open(f"/proc/{job.pid}/status").read()
            peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
            half, after = half or peak, peak
    assert job.wait() == 0
    assert after < half + 30
