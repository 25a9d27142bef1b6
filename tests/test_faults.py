"""Folder steps and prediction on what people really have: bad files, odd names, full disks, changed inputs."""

import json
import os
import random
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import TINY, in_shell
from PIL import Image

WBCTOOL = [sys.executable, "-m", "wbctool"]


@pytest.fixture
def mixed(drawn, tmp_path):
    """Good images of every kind and bad ones of every kind."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    source = sorted((drawn / "images" / "monocyte").iterdir())[0]
    image = Image.open(source).convert("RGB")
    array = np.asarray(image)
    raw = source.read_bytes()
    image.save(folder / "good.png")
    image.save(folder / "good.tif")
    image.save(folder / "good.bmp")
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=98)
    image.convert("RGBA").save(folder / "rgba.png")
    image.convert("L").save(folder / "grey.png")
    cv2.imwrite(str(folder / "deep.png"), array[..., ::-1].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x112] = 6
    image.rotate(90, expand=True).save(folder / "turned.jpg", exif=exif, quality=98)
    (folder / "truncated.jpg").write_bytes(raw[: len(raw) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "random.tif").write_bytes(random.Random(0).randbytes(5000))
    (folder / "text.jpg").write_text("not an image")
    (folder / "notes.txt").write_text("left out")
    (folder / ".DS_1.jpg").write_bytes(b"hidden")
    return folder


def test_good_images_of_every_kind_get_their_mask_and_bad_ones_an_error_record(mixed, tmp_path):
    done = in_shell("segment", mixed, "-o", tmp_path / "m")
    assert done.code == 4
    assert "Traceback" not in done.err
    by_id = {record["id"]: record for record in done.records}
    assert len(by_id) == 12
    bad = {name for name, record in by_id.items() if record["schema"] == "wbctool.error/1"}
    assert bad == {"truncated.jpg", "empty.png", "random.tif", "text.jpg"}
    assert "truncated JPEG" in by_id["truncated.jpg"]["error"]
    for line in ("1 hidden file left out", "1 non-image file left out", "4 inputs failed"):
        assert line in done.err
    # three inputs are called good: the later two keep their suffix
    assert {os.path.basename(by_id[f"good.{s}"]["mask"]) for s in ("bmp", "png", "tif")} == {
        "good.png", "good.png.png", "good.tif.png",
    }  # fmt: skip
    reference = cv2.imread(by_id["good.png"]["mask"], cv2.IMREAD_UNCHANGED) > 0
    for name in set(by_id) - bad - {"grey.png"}:
        mask = cv2.imread(by_id[name]["mask"], cv2.IMREAD_UNCHANGED) > 0
        assert mask.shape == reference.shape
        assert 2 * (mask & reference).sum() / (mask.sum() + reference.sum()) > 0.95, name
    assert in_shell("segment", mixed, "-o", tmp_path / "m", "--skip-bad", "-q").code == 0


def test_error_records_pass_on_and_do_not_fail_the_next_step(mixed, tmp_path):
    first = in_shell("segment", mixed, "-o", tmp_path / "m", "-q")
    done = in_shell("crop", "-", "-o", tmp_path / "c", "-q", stdin=first.out)
    assert done.code == 0
    assert sum(record["schema"] == "wbctool.error/1" for record in done.records) == 4


def test_an_image_without_a_cell_is_counted_and_left_out_later(cli, drawn, run_folder, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (90, 90), (240, 230, 220)).save(folder / "blank.png")
    shutil.copy(sorted((drawn / "images" / "monocyte").iterdir())[0], folder)
    masks = in_shell("segment", folder, "-o", tmp_path / "m", "-q")
    done = in_shell("crop", "-", "-o", tmp_path / "c", "--size", 48, stdin=masks.out)
    assert done.code == 0
    assert "1 images have no such cell" in done.err
    blank = done.records[0]
    assert (blank["id"], blank["cells"]) == ("blank.png", [])
    predicted = cli("predict", run_folder, tmp_path / "c")
    assert [r["id"] for r in predicted.records] == ["s01_monocyte_001.jpg#1"]
    assert "1 fields without a cell left out" in predicted.err


def test_a_record_cannot_write_outside_or_crop_what_has_no_mask(drawn, tmp_path):
    image = str(sorted((drawn / "images" / "band").iterdir())[0])
    lines = [
        {"schema": "wbctool.image/1", "id": i, "path": image} for i in ("../evil.jpg", "/evil.jpg", "ok.jpg", "ok.jpg")
    ]
    text = "\n".join(map(json.dumps, lines)) + "\nbroken\n"
    done = in_shell("segment", "-", "-o", tmp_path / "m", "-q", stdin=text)
    assert done.code == 4
    kinds = [record["schema"].split(".")[1] for record in done.records]
    assert kinds == ["error/1", "error/1", "mask/1", "error/1", "error/1"]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    crop = in_shell("crop", "-", "-o", tmp_path / "c", "-q", stdin=json.dumps(lines[2]))
    assert crop.code == 3
    assert "ok.jpg: has no mask; run `wbctool segment" in crop.err
    assert not (tmp_path / "c").exists()


def test_a_mask_of_another_size_is_an_error_record(masks, tmp_path):
    record = json.loads((masks / "records.jsonl").read_text().splitlines()[0])
    record["path"] = str((masks / record["path"]).resolve())
    record["mask"] = str(tmp_path / "other.png")
    Image.new("L", (7, 9)).save(tmp_path / "other.png")
    done = in_shell("crop", "-", "-o", tmp_path / "c", "-q", stdin=json.dumps(record))
    assert done.code == 4
    assert "the mask is 7×9, its image 160×160" in done.records[0]["error"]


def test_prediction_from_records_prepared_otherwise_warns(cli, masks, run_folder):
    done = cli("predict", run_folder, masks)
    assert done.code == 0
    assert "48 images were prepared differently" in done.err


def test_several_runs_are_averaged_and_thresholds_marked(cli, cells, run_folder, tmp_path):
    other = tmp_path / "b"
    assert cli("train", cells, "-o", other, *TINY, "--epochs", 1, "--seed", 9, "-q").code == 0
    one, two, both = (
        cli("predict", *runs, cells, "--threshold", "0.5", "-q").records
        for runs in ([run_folder], [other], [run_folder, other])
    )
    for a, b, mean in zip(one, two, both, strict=True):
        for name, value in mean["probabilities"].items():
            assert value == pytest.approx((a["probabilities"][name] + b["probabilities"][name]) / 2, abs=2e-6)
        assert mean["uncertain"] == (mean["confidence"] < 0.5)


def test_a_full_disk_stops_with_one_line_and_the_rerun_goes_on(drawn, tmp_path):
    limit = f"ulimit -f 4; exec {' '.join(WBCTOOL)} segment {drawn}/images -o {tmp_path}/m --jobs 1"
    done = subprocess.run(["bash", "-c", f"trap '' XFSZ; {limit}"], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("wbctool: ")
    assert len(done.stderr.splitlines()) == 1
    again = in_shell("segment", drawn / "images", "-o", tmp_path / "m", "-q")
    assert again.code == 0
    assert len(again.records) == 48


def test_records_are_utf_8_whatever_the_locale(drawn, tmp_path):
    source = tmp_path / "Zellen – 細胞 '\"<b>"
    shutil.copytree(drawn / "images" / "band", source / "Stab\nkernig")
    env = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    words = [*WBCTOOL, "segment", source, "-o", tmp_path / "ö"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["label"] for line in done.stdout.splitlines()} == {"Stab\nkernig"}


def test_old_error_records_do_not_stop_training(cli, cells, tmp_path):
    broken = {"schema": "wbctool.error/1", "id": "stdin line 5", "path": None, "error": "not JSON"}
    text = "\n".join(
        json.dumps({**record, "path": str(cells / record["path"])})
        for record in map(json.loads, (cells / "records.jsonl").read_text().splitlines())
    )
    done = cli("train", "-", "-o", tmp_path / "r", *TINY, "--epochs", 0, stdin=f"{text}\n{json.dumps(broken)}\n")
    assert done.code == 0, done.err
    assert "left out of training: 1 error record" in done.err
    fresh = cli("train", "-", "-o", tmp_path / "s", *TINY, "--epochs", 0, stdin=f"{text}\nx\n")
    assert fresh.code == 3
    assert "line 49" in fresh.err


def test_predict_gives_an_error_record_for_a_bad_image_and_passes_old_ones_on(cli, mixed, run_folder):
    done = cli("predict", run_folder, mixed)
    assert done.code == 4
    kinds = {record["id"]: record["schema"].split(".")[1] for record in done.records}
    assert sum(kind == "error/1" for kind in kinds.values()) == 4
    assert sum(kind == "prediction/1" for kind in kinds.values()) == 8
    text = "\n".join(json.dumps(record) for record in done.records if record["schema"] == "wbctool.error/1")
    image = json.dumps({"schema": "wbctool.image/1", "id": "g", "path": str(mixed / "good.png")})
    again = cli("predict", run_folder, "-", stdin=f"{text}\n{image}\n")
    assert again.code == 0
    assert [r["schema"] for r in again.records] == ["wbctool.error/1"] * 4 + ["wbctool.prediction/1"]


def test_predict_looks_again_at_images_that_changed_and_spares_other_files(cli, drawn, run_folder, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(drawn / "images" / "band", source)
    first = cli("predict", run_folder, source, "-o", tmp_path / "p.jsonl", "-q")
    time.sleep(0.01)
    paths = sorted(source.iterdir())
    shutil.copy(drawn / "images" / "monocyte" / "s01_monocyte_001.jpg", paths[0])
    second = cli("predict", run_folder, source, "-o", tmp_path / "p.jsonl", "-q")
    assert second.records[0]["probabilities"] != first.records[0]["probabilities"]
    assert second.records[1]["predicted"] == first.records[1]["predicted"]
    (tmp_path / "mine.jsonl").write_text('{"a":1}\n')
    assert cli("predict", run_folder, source, "-o", tmp_path / "mine.jsonl").code == 3
    assert (tmp_path / "mine.jsonl").read_text() == '{"a":1}\n'
    assert cli("predict", run_folder, tmp_path / "p.jsonl", "-o", tmp_path / "p.jsonl").code == 2
    assert "prediction already" in cli("predict", run_folder, tmp_path / "p.jsonl").err


def test_no_step_writes_over_its_own_input(drawn, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.open(next((drawn / "images" / "band").iterdir())).save(folder / "a.png")
    before = (folder / "a.png").read_bytes()
    for words in (("segment", folder, "-o", folder), ("segment", folder / "a.png", "-o", folder)):
        done = in_shell(*words)
        assert done.code == 2
        assert "holds the input" in done.err
    assert [p.name for p in folder.iterdir()] == ["a.png"]
    assert (folder / "a.png").read_bytes() == before
    assert in_shell("segment", folder, "-o", folder / "masks", "-q").code == 0
    assert len(in_shell("segment", folder, "-o", folder / "masks", "-q").records) == 1


def test_overwriting_with_another_sharding_leaves_no_stale_records(drawn, tmp_path):
    source, out = drawn / "images" / "band", tmp_path / "m"
    in_shell("segment", source, "-o", out, "-q")
    for shard in ("1/2", "2/2"):
        done = in_shell("segment", source, "-o", out, "--shard", shard, "--method", "cyan-otsu", "--overwrite", "-q")
        assert done.code == 0, done.err
    assert {record["method"] for record in in_shell("split", out, "-q").records} == {"cyan-otsu"}
    shutil.copytree(source, tmp_path / "x" / "band")
    out.rename(tmp_path / "x" / "sharded")
    assert len(in_shell("split", tmp_path / "x", "-q").records) == 6  # sharded output folders are no input


def test_an_input_folder_called_masks_and_an_output_behind_a_link(drawn, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(drawn / "images" / "band", source / "masks")
    image = sorted((source / "masks").iterdir())[0]
    shutil.copy(image, source / image.name)
    (tmp_path / "real" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep" / "er")
    masks = in_shell("segment", source, "-o", tmp_path / "link" / "m", "-q")
    assert masks.code == 0
    for given in (tmp_path / "link" / "m", tmp_path / "real" / "deep" / "er" / "m"):
        done = in_shell("crop", given, "-o", tmp_path / f"c{len(str(given))}", "-q")
        assert done.code == 0, done.err
        files = [record[key] for record in done.records for key in ("path", "mask")]
        assert len(set(files)) == 14
        assert all(os.path.exists(file) for file in files)


@pytest.mark.parametrize("words", ["evaluate RUN", "--help", "segment --help", "--schema mask", "info RUN"])
def test_a_closed_pipe_is_no_fault_of_any_command(run_folder, words):
    line = f"{' '.join(WBCTOOL)} {words.replace('RUN', str(run_folder))} 2> /dev/null | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stdout == "0\n"
