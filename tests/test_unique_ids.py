"""Ids across several inputs: unique, the same every time, and unchanged where no id is in two inputs."""

import json
import subprocess
import sys

import cv2
import pytest
from conftest import TINY, in_shell, read_records, write_records

from wbctool.errors import UsageProblem
from wbctool.inputs.folders import read_inputs
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally


@pytest.fixture(scope="module")
def halves(drawn, tmp_path_factory):
    """Two folders with the same relative names, TRAIN and TEST, as the public set has them."""
    folder = tmp_path_factory.mktemp("halves")
    for label in ("band", "monocyte"):
        for number, path in enumerate(sorted((drawn / "images" / label).iterdir())):
            target = folder / ("TRAIN", "TEST")[number % 2] / label / f"{number // 2}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def image(image_id, path, **more):
    return {"schema": "wbctool.image/1", "id": image_id, "path": str(path), **more}


def cell(image_id, value, path, **more):
    crop = {"source": "/field.jpg", "bbox": [0, 0, 8, 8], "value": value, "kind": "wbc", "crop": {}}
    return {"schema": "wbctool.cell/1", "id": f"{image_id}#{value}", "path": str(path), **crop, **more}


def read(*inputs, **selection):
    tally = Tally()
    return list(read_inputs([str(given) for given in inputs], Selection(**selection), tally)), tally


def ids(*inputs):
    return [record["id"] for record in read(*inputs)[0]]


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_one_input_and_inputs_without_common_ids_stay_as_they_are(tmp_path):
    a, b = touch(tmp_path / "a", "x/1.jpg"), touch(tmp_path / "b", "x/2.jpg")
    assert ids(a) == ["x/1.jpg"]
    assert ids(a, b) == ["x/1.jpg", "x/2.jpg"]
    assert not read(a, b)[1].prefixes


def test_names_are_put_in_front_of_all_ids_of_inputs_that_clash_and_of_no_other(tmp_path):
    a, b = touch(tmp_path / "a", "x/1.jpg", "x/2.jpg"), touch(tmp_path / "b", "x/1.jpg", "3.jpg")
    c = touch(tmp_path / "c", "y/1.jpg")
    records, tally = read(a, b, c)
    assert [record["id"] for record in records] == ["a/x/1.jpg", "a/x/2.jpg", "b/3.jpg", "b/x/1.jpg", "y/1.jpg"]
    assert [record.get("label") for record in records] == ["x", "x", None, "x", "y"]
    assert any("a/, b/" in line for line in tally.notes())
    assert ids(b, a) == ["b/3.jpg", "b/x/1.jpg", "a/x/1.jpg", "a/x/2.jpg"]


def test_equal_names_and_names_that_an_input_has_as_a_folder_get_a_number(tmp_path):
    first, second = touch(tmp_path / "1" / "set", "x.jpg"), touch(tmp_path / "2" / "set", "x.jpg")
    assert ids(first, second) == ["set/x.jpg", "set-2/x.jpg"]
    whole = touch(tmp_path / "3", "set/x.jpg", "set-3/x.jpg")
    assert ids(whole, first, second) == ["set/x.jpg", "set-3/x.jpg", "set-2/x.jpg", "set-4/x.jpg"]


def test_images_given_one_by_one_have_the_name_of_their_folder(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    assert ids(*(tmp_path / name for name in ("a/1.jpg", "b/1.jpg", "a/2.jpg"))) == ["a/1.jpg", "b/1.jpg", "a/2.jpg"]


def test_record_files_have_their_own_name_or_that_of_their_output_folder(tmp_path):
    for name in ("a/records.jsonl", "b/records-1-of-1.jsonl", "split.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_records(tmp_path / name, [cell("x.jpg", 1, "/c.png")])
    inputs = [tmp_path / "a", tmp_path / "b" / "records-1-of-1.jsonl", tmp_path / "split.jsonl"]
    assert ids(*inputs) == ["a/x.jpg#1", "b/x.jpg#1", "split/x.jpg#1"]


@pytest.mark.parametrize("other", ["folder", "pipe"])
def test_pipes_among_several_inputs_are_compared_too(tmp_path, other):
    folder = touch(tmp_path / "images", "x/1.jpg", "x/2.jpg")
    line = json.dumps(image("x/1.jpg", "/elsewhere.jpg"))
    second = folder if other == "folder" else f"<(echo '{line}')"
    command = f"echo '{line}' | {sys.executable} -m wbctool split - {second} --ratio 1/1 -q"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ids = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert ids == (["stdin/x/1.jpg", "images/x/1.jpg", "images/x/2.jpg"] if other == "folder" else
                     ["stdin/x/1.jpg", "pipe/x/1.jpg"])  # fmt: skip


def test_an_input_that_is_given_twice_is_refused(tmp_path):
    folder = touch(tmp_path / "a", "x.jpg")
    with pytest.raises(UsageProblem, match="twice"):
        read(folder, f"{folder}/")


def test_patterns_and_tables_match_ids_with_and_without_the_name(tmp_path):
    a, b = touch(tmp_path / "s1_a", "7_x.jpg", "8_x.jpg"), touch(tmp_path / "s2_b", "7_x.jpg")
    groups = [record.get("group") for record in read(a, b, group_regex=r"^(\d+)_")[0]]
    assert groups == ["7", "8", "7"]  # as with one input: no group is parted by the names in front
    groups = [record.get("group") for record in read(a, b, group_regex=r"^s(?P<slide>\d).*/(?P<number>\d)")[0]]
    assert groups == ["1/7", "1/8", "2/7"]
    (tmp_path / "labels.csv").write_text("image,label\ns2_b/7_x.jpg,EO\n7_x.jpg,BA\n")
    labels = [record.get("label") for record in read(a, b, labels=tmp_path / "labels.csv")[0]]
    assert labels == ["BA", None, "EO"]


def test_composites_name_their_sources_by_their_new_ids(tmp_path):
    a = write_records(tmp_path / "a.jsonl", [cell("x.jpg", 1, "/a.png", split="test")])
    b = write_records(tmp_path / "b.jsonl", [cell("x.jpg", 1, "/b.png", split="train")])
    made = image("made.jpg", "/made.png", synthetic=True, sources=["x.jpg", "unknown.jpg"], split="train")
    c = write_records(tmp_path / "c.jsonl", [made])
    assert read(a, b, c)[0][-1]["sources"] == ["a/x.jpg", "b/x.jpg", "unknown.jpg"]
    again = write_records(tmp_path / "d.jsonl", [made, image("x.jpg", "/d.png", near_duplicate_of="made.jpg")])
    records = read(a, c, again)[0]
    assert [r["id"] for r in records] == ["x.jpg#1", "c/made.jpg", "d/made.jpg", "d/x.jpg"]
    assert [r.get("sources") for r in records[1:3]] == [["x.jpg", "d/x.jpg", "unknown.jpg"], ["d/x.jpg", "unknown.jpg"]]
    assert records[3]["near_duplicate_of"] == "d/made.jpg"


def test_predictions_keep_their_ids_and_are_refused_by_evaluate(cli, tmp_path):
    prediction = {
        "schema": "wbctool.prediction/1",
        "id": "x",
        "path": "/x.png",
        "predicted": "A",
        "confidence": 1.0,
        "probabilities": {"A": 1.0},
    }
    files = [write_records(tmp_path / f"{name}.jsonl", [prediction]) for name in "ab"]
    done = cli("evaluate", *files, "--differential")
    assert done.code == 3
    assert "keep one of them" in done.err


def test_split_and_segment_give_each_image_its_own_id(halves, tmp_path):
    inputs = (halves / "TRAIN", halves / "TEST")
    done = in_shell("split", *inputs, "--ratio", "1/1/1")
    assert done.code == 0
    assert len({record["id"] for record in done.records}) == len(done.records) == 12
    assert {record["id"].split("/")[0] for record in done.records} == {"TRAIN", "TEST"}
    assert {record["label"] for record in done.records} == {"band", "monocyte"}
    assert "TRAIN/, TEST/" in done.err
    masks = in_shell("segment", *inputs, "-o", tmp_path / "m", "--method", "cyan-otsu", "--jobs", 1)
    assert masks.code == 0, masks.err
    assert {record["id"] for record in masks.records} == {record["id"] for record in done.records}
    assert len({record["mask"] for record in masks.records}) == 12
    again = in_shell("segment", *inputs, "-o", tmp_path / "m", "--method", "cyan-otsu", "--jobs", 1)
    assert "done before" in again.err


def test_one_input_gives_the_same_bytes_as_ever(halves, tmp_path):
    done = in_shell("split", halves / "TEST", "--ratio", "1/1/1", "-q")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["id"] for line in lines] == [f"{label}/{n}.jpg" for label in ("band", "monocyte") for n in range(3)]
    assert list(lines[0]) == ["schema", "id", "path", "label", "split"]


def test_a_run_trained_on_two_folders_is_evaluated(halves, tmp_path):
    words = ("train", halves / "TRAIN", halves / "TEST", "-o", tmp_path / "run", *TINY, "--epochs", 1, "-q")
    done = in_shell(*words)
    assert done.code == 0, done.err
    predictions = read_records(tmp_path / "run" / "predictions.jsonl")
    assert len({record["id"] for record in predictions}) == len(predictions)
    shown = in_shell("evaluate", tmp_path / "run", "--split", "all", "--json")
    assert shown.code == 0, shown.err


@pytest.mark.parametrize("name", ["a#b.jpg", "a#1.jpg", "#.jpg"])
def test_a_file_name_may_contain_the_sign_of_cells(drawn, tmp_path, name):
    folder = tmp_path / "in" / "band"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / name), cv2.imread(str(next((drawn / "images" / "band").iterdir()))))
    assert in_shell("segment", tmp_path / "in", "-o", tmp_path / "m", "--jobs", 1, "-q").code == 0
    words = ("crop", tmp_path / "m", "-o", tmp_path / "c", "--size", 16, "--which", "all", "--kind", "any", "--jobs", 1)
    first = in_shell(*words)
    assert first.code == 0, first.err
    assert {record["id"].rpartition("#")[0] for record in first.records} == {f"band/{name}"}
    again = in_shell(*words)
    assert "done before" in again.err  # cells were found again by the id of their image
    assert again.out == first.out
    (tmp_path / "labels.csv").write_text(f"image,label\nband/{name},EO\n")
    labelled = in_shell("split", tmp_path / "c", "--labels", tmp_path / "labels.csv", "-q").records
    assert {record["label"] for record in labelled} == {"EO"}
