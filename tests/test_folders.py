"""Finding images, labels and groups."""

import json
import os

import pytest

from wbctool.errors import InputError, UsageProblem
from wbctool.inputs.folders import read_inputs
from wbctool.records import group_of
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def read(folder, **selection):
    tally = Tally()
    return list(read_inputs([str(folder)], Selection(**selection), tally)), tally


def test_images_are_found_in_order_with_the_parent_folder_as_label(tmp_path):
    touch(tmp_path, "b/2.PNG", "b/1.jpg", "a/x/3.tif", "top.bmp", "a/notes.txt", "b/.DS_1.jpg", ".git/x.png")
    records, tally = read(tmp_path)
    assert [(r["id"], r.get("label")) for r in records] == [
        ("top.bmp", None),
        ("a/x/3.tif", "x"),
        ("b/1.jpg", "b"),
        ("b/2.PNG", "b"),
    ]
    assert tally.counts == {"no image": 1, "hidden": 2, "no label": 1}
    assert all(os.path.isabs(record["path"]) for record in records)


def test_a_loop_of_links_is_walked_once(tmp_path):
    touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert [r["id"] for r in read(tmp_path)[0]] == ["a/1.png"]


def test_output_folders_inside_the_input_are_left_out(tmp_path):
    touch(tmp_path, "1.png", "masks/1.png", "masks/run.json")
    records, tally = read(tmp_path)
    assert [r["id"] for r in records] == ["1.png"]
    assert tally.counts["output folder"] == 1


def test_a_label_pattern_replaces_the_folders_label_also_where_it_does_not_match(tmp_path):
    touch(tmp_path, "ig/PMY_1.jpg", "ig/IG_2.jpg")
    records, tally = read(tmp_path, label_regex="^(?P<label>PMY|MY)_")
    assert {r["id"]: r.get("label") for r in records} == {"ig/PMY_1.jpg": "PMY", "ig/IG_2.jpg": None}
    assert tally.counts["no label"] == 1


def test_the_label_of_a_cell_comes_from_its_sources_name(tmp_path):
    cell = {
        "schema": "wbctool.cell/1", "id": "a.jpg#1", "path": "c/a_1.png", "source": "EO_a.jpg", "bbox": [0, 0, 1, 1],
        "value": 1, "kind": "wbc", "crop": {},
    }  # fmt: skip
    (tmp_path / "x.jsonl").write_text(json.dumps(cell))
    records, _ = read(tmp_path / "x.jsonl", label_regex="^(EO|BA)")
    assert records[0]["label"] == "EO"
    assert records[0]["path"] == str(tmp_path / "c" / "a_1.png")
    assert group_of(records[0]) == str(tmp_path / "EO_a.jpg")


def test_named_groups_of_the_group_regex_are_joined(tmp_path):
    touch(tmp_path, "TRAIN/EO/_17_203.jpeg", "odd.png")
    pattern = r"(?P<a>TRAIN|TEST)[A-Z_]*/(?P<b>[A-Z]+)/_(?P<c>\d+)_"
    records, tally = read(tmp_path, group_regex=pattern)
    assert {r["id"]: r.get("group") for r in records} == {"odd.png": None, "TRAIN/EO/_17_203.jpeg": "TRAIN/EO/17"}
    assert tally.counts["group not matched"] == 1


def test_labels_and_groups_from_a_table(tmp_path):
    touch(tmp_path, "a/1.png", "a/2.png", "a/3.png")
    table = tmp_path / "t.csv"
    table.write_text("﻿Image,Label,Patient\n1.png,EO,p1\na/2.png,BA,p2\n")
    records, _ = read(tmp_path, labels=table)
    assert [(r.get("label"), r.get("group")) for r in records] == [("EO", "p1"), ("BA", "p2"), (None, None)]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "image\nx\n"])
def test_a_table_without_its_columns_is_named(tmp_path, text):
    touch(tmp_path, "1.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=r"t\.csv"):
        read(tmp_path, labels=tmp_path / "t.csv")


def test_classes_are_renamed_then_chosen(tmp_path):
    touch(tmp_path, "old/1.png", "b/2.png", "c/3.png")
    records, tally = read(tmp_path, rename=("old=new",), classes="new,b")
    assert [r["label"] for r in records] == ["b", "new"]
    assert tally.counts["class not asked for"] == 1


@pytest.mark.parametrize("selection", [{"label_regex": "("}, {"group_regex": "["}, {"rename": ("a",)}])
def test_a_bad_pattern_is_a_usage_error(tmp_path, selection):
    touch(tmp_path, "1.png")
    with pytest.raises(UsageProblem, match="--"):
        read(tmp_path, **selection)


def test_shards_are_read_together_and_a_missing_one_is_named(tmp_path):
    for index in (1, 2, 3):
        line = {"schema": "wbctool.image/1", "id": f"{index}.png", "path": f"{index}.png"}
        (tmp_path / f"records-{index}-of-3.jsonl").write_text(json.dumps(line) + "\n")
    assert [r["id"] for r in read(tmp_path)[0]] == ["1.png", "2.png", "3.png"]
    (tmp_path / "records-2-of-3.jsonl").unlink()
    with pytest.raises(InputError, match="shards 2 of 3 are missing"):
        read(tmp_path)


def test_a_folder_whose_command_was_killed_is_not_taken_for_images(tmp_path):
    touch(tmp_path, "1.png", ".records.jsonl.part")
    with pytest.raises(InputError, match="not finished"):
        read(tmp_path)


def test_a_damaged_line_becomes_an_error_record_and_the_rest_goes_on(tmp_path):
    good = json.dumps({"schema": "wbctool.image/1", "id": "1.png", "path": "1.png"})
    (tmp_path / "r.jsonl").write_bytes(f"{good}\n\n".encode() + b'{"schema"\n\xff\xfe\n' + good.encode())
    records, tally = read(tmp_path / "r.jsonl")
    assert [r["schema"].split(".")[1] for r in records] == ["image/1", "error/1", "error/1", "image/1"]
    assert "line 3" in records[1]["error"]
    assert tally.counts["damaged"] == 2


@pytest.mark.parametrize("name", ["nothing", "x.txt"])
def test_an_input_that_cannot_be_used_is_named(tmp_path, name):
    touch(tmp_path, "x.txt")
    with pytest.raises(InputError, match=name):
        read(tmp_path / name)
