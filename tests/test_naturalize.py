"""Composites: of training images only, exact in their masks, the same bytes however they are made."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import contents, in_shell
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wbctool.errors import InputError
from wbctool.naturalizing.background import CleanSlide, fit_light, light
from wbctool.naturalizing.blocks import replaced
from wbctool.naturalizing.plan import for_training, planned
from wbctool.naturalizing.pool import read_pool
from wbctool.naturalizing.subjects import odd_ones, subject_of


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def absolute(records, folder):
    return [
        {**r, "path": str((folder / r["path"]).resolve()), "mask": str((folder / r["mask"]).resolve())} for r in records
    ]


@pytest.fixture(scope="module")
def split(masks):
    """The drawn masks, a third of the slides in each split; paths from the root."""
    return [r for r in read(masks.parent / "split.jsonl") if "cells" in r]


@pytest.fixture(scope="module")
def made(split, tmp_path_factory):
    """`natural`, four of each class, and its pool."""
    place = tmp_path_factory.mktemp("naturalize")
    write(place / "split.jsonl", split)
    done = in_shell("naturalize", place / "split.jsonl", "-o", place / "out", "--add", 4, "--jobs", 1)
    assert done.code == 0, done.err
    return place


def test_records_say_what_they_are_of(made, split):
    sources = {r["id"]: r for r in split}
    records = absolute(read(made / "out" / "records.jsonl"), made / "out")
    assert len(records) == 4 * 8
    for record in records:
        assert record["synthetic"] is True
        assert record["split"] == "train"
        cell = sources[record["naturalize"]["cell"]["source"]]
        assert record["sources"][0] == cell["id"]
        assert (record["label"], record["group"], record["method"]) == (cell["label"], cell["group"], cell["method"])
        assert record["naturalize"]["field"] in record["sources"]
        assert record["id"].split("/")[0] == record["label"]
        assert {sources[name]["split"] for name in record["sources"]} == {"train"}


def test_the_label_image_is_exact(made):
    for record in absolute(read(made / "out" / "records.jsonl"), made / "out"):
        labels = cv2.imread(record["mask"], cv2.IMREAD_UNCHANGED)
        assert labels.shape[::-1] == tuple(record["size"]) == cv2.imread(record["path"]).shape[1::-1]
        values = {0}
        for cell in record["cells"]:
            mask = labels == cell["value"]
            values.add(cell["value"])
            if "nucleus" in cell:
                values.add(cell["nucleus"]["value"])
                assert (labels == cell["nucleus"]["value"]).sum() == cell["nucleus"]["area"]
                mask |= labels == cell["nucleus"]["value"]
            rows, columns = np.nonzero(mask)
            assert mask.sum() == cell["area"]
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert box == cell["bbox"]
            assert np.allclose([columns.mean(), rows.mean()], cell["centroid"], atol=0.051)
        assert set(np.unique(labels)) == values
        main = [cell for cell in record["cells"] if cell["kind"] == "wbc"]
        assert len(main) == (record["label"] != "platelet")


def test_the_cell_is_that_of_its_source_and_the_rest_that_of_its_field(made, split):
    """The cell looks as in its source; far from it, and from what made room, the field is untouched."""
    sources = {r["id"]: r for r in split}
    for record in absolute(read(made / "out" / "records.jsonl"), made / "out")[::5]:
        image = cv2.imread(record["path"]).astype(float)
        how = record["naturalize"]
        field = cv2.imread(sources[how["field"]]["path"]).astype(float)
        field_labels = cv2.imread(sources[how["field"]]["mask"], cv2.IMREAD_UNCHANGED)
        labels = cv2.imread(record["mask"], cv2.IMREAD_UNCHANGED)
        changed = cv2.absdiff(image, field).max(2) > 6
        own = max((c for c in record["cells"] if c["kind"] in ("wbc", "platelet")), key=lambda c: c["area"])
        near = np.zeros(labels.shape, np.uint8)
        x, y = how["cell"]["at"]
        near[labels == own["value"]] = 1
        old = [c for c in sources[how["field"]]["cells"] if c["kind"] != "rbc"]
        for cell in old:
            near[(field_labels == cell["value"]) | (field_labels == cell.get("nucleus", {}).get("value", -1))] = 1
        # red cells that made room
        near[(field_labels > 0) & (labels == 0)] = 1
        reach = cv2.dilate(near, np.ones((35, 35), np.uint8)) > 0
        assert not (changed & ~reach).any()
        source = sources[how["cell"]["source"]]
        theirs = cv2.imread(source["path"])
        cell = next(c for c in source["cells"] if c["kind"] == own["kind"] and c["area"] >= own["area"])
        left, top, wide, high = (int(v) for v in cell["bbox"])
        mean = theirs[top : top + high, left : left + wide].mean((0, 1))
        x, y, wide, high = own["bbox"]
        assert np.abs(image[y : y + high, x : x + wide].mean((0, 1)) - mean).max() < 25


@pytest.mark.parametrize("way", ["jobs", "shards"])
def test_the_same_bytes_whatever_the_way(made, tmp_path, way):
    words = ("naturalize", made / "split.jsonl", "-o", tmp_path / "out", "--pool", made / "out" / "pool", "--add", 4)
    if way == "jobs":
        assert in_shell(*words, "--jobs", 2).code == 0
    else:
        lines = [in_shell(*words, "--shard", shard).records for shard in ("2/3", "1/3", "3/3")]
        ids = [record["id"] for part in lines for record in part]
        assert len(ids) == len(set(ids)) == 32
    mine, theirs = contents(tmp_path / "out"), contents(made / "out")
    pictures = {name: data for name, data in theirs.items() if name.endswith((".jpg", ".png")) and "pool" not in name}
    assert len(pictures) == 64
    assert {name: mine[name] for name in pictures} == pictures
    if way == "jobs":
        assert mine["records.jsonl"] == theirs["records.jsonl"]


def test_a_pool_made_by_two_processes_is_the_same(made, tmp_path):
    out = tmp_path / "out"
    assert in_shell("naturalize", made / "split.jsonl", "-o", out, "--add", 0, "--jobs", 2).code == 0
    mine, theirs = contents(out / "pool"), contents(made / "out" / "pool")
    mine.pop("records.jsonl"), theirs.pop("records.jsonl")  # paths relative to elsewhere
    assert mine == theirs


def test_killed_and_run_again_it_ends_in_the_same_bytes(made, tmp_path):
    words = [sys.executable, "-m", "wbctool", "naturalize", made / "split.jsonl", "-o", tmp_path / "out"]
    words += ["--add", "4", "--jobs", "1", "-q"]
    for seconds in (0.9, 1.3, 1.7):
        process = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = in_shell(*words[3:])
    assert done.code == 0, done.err
    mine, theirs = contents(tmp_path / "out"), contents(made / "out")
    assert {n: d for n, d in mine.items() if not n.endswith("run.json") and n != "pool/records.jsonl"} == {
        n: d for n, d in theirs.items() if not n.endswith("run.json") and n != "pool/records.jsonl"
    }


def test_composites_are_cropped_and_trained_on(made, masks, split, tmp_path):
    write(tmp_path / "split.jsonl", split)
    assert in_shell("crop", made / "out", "-o", tmp_path / "grown", "--size", 32).code == 0
    assert in_shell("crop", tmp_path / "split.jsonl", "-o", tmp_path / "cells", "--size", 32).code == 0
    grown = read(tmp_path / "grown" / "records.jsonl")
    assert all(r["synthetic"] and r["sources"] for r in grown)
    words = ("--backbone", "resnet10t", "--weights", "none", "--size", 32, "--epochs", 1, "--batch-size", 8, "-q")
    done = in_shell("train", tmp_path / "cells", tmp_path / "grown", "-o", tmp_path / "run", *words)
    assert done.code == 0, done.err
    assert not any(r.get("synthetic") for r in read(tmp_path / "run" / "predictions.jsonl"))
    trained = [r for r in read(tmp_path / "run" / "dataset.jsonl") if r["split"] == "train"]
    assert sum(bool(r.get("synthetic")) for r in trained) == 32


def test_paper_lays_boxes_apart_on_an_empty_slide(made, tmp_path):
    words = ("naturalize", made / "split.jsonl", "-o", tmp_path, "--pool", made / "out" / "pool", "--add", 2)
    done = in_shell(*words, "--algorithm", "paper", "--rbc", 3)
    assert done.code == 0, done.err
    for record in done.records:
        boxes = [cell["bbox"] for cell in record["cells"]]
        assert sorted(cell["kind"] for cell in record["cells"])[:3] == (
            ["rbc"] * 3 if record["label"] != "platelet" else ["platelet", "rbc", "rbc"]
        )
        assert len(record["naturalize"]["red_cells"]) == 3
        for k, (x, y, wide, high) in enumerate(boxes):
            for left, top, w, h in boxes[:k]:
                assert x >= left + w or left >= x + wide or y >= top + h or top >= y + high


@pytest.mark.parametrize("count", [0, 2, 6])
def test_as_many_red_cells_as_asked_for(made, tmp_path, count):
    words = ("naturalize", made / "split.jsonl", "-o", tmp_path, "--pool", made / "out" / "pool", "--add", 2)
    done = in_shell(*words, "--rbc", count)
    assert done.code == 0, done.err
    for record in done.records:
        assert sum(cell["kind"] == "rbc" for cell in record["cells"]) == count


def test_cells_are_used_evenly_and_the_uses_are_told(made, tmp_path):
    pool = read_pool(made / "out" / "pool")
    uses = {}
    for record in planned(pool, {"monocyte": 7}, "natural", None, 0, tmp_path):
        uses[record["naturalize"]["cell"]] = uses.get(record["naturalize"]["cell"], 0) + 1
    assert len(uses) == len(pool.subjects["monocyte"])
    assert max(uses.values()) - min(uses.values()) <= 1


def test_a_million_composites_are_planned_in_flat_memory(made, tmp_path):
    import tracemalloc

    pool = read_pool(made / "out" / "pool")
    plan = planned(pool, {"monocyte": 500_000, "band": 500_000}, "natural", None, 0, tmp_path)
    tracemalloc.start()
    held = []
    for _ in range(2):
        ids = {record["id"] for _, record in zip(range(20_000), plan, strict=False)}
        assert len(ids) == 20_000
        del ids
        tracemalloc.reset_peak()
        assert sum(1 for _ in zip(range(10_000), plan, strict=False)) == 10_000
        held.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert held[1] < held[0] + 20_000


# Nothing of validation or test enters a pool.


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["train", "val", "test", None]), min_size=1, max_size=20))
def test_only_training_records_serve(splits):
    records = [
        {
            "schema": "wbctool.mask/1",
            "id": str(k),
            "path": f"/{k}.jpg",
            "mask": f"/{k}.png",
            "size": [9, 9],
            "cells": [],
        }
        | ({"split": split} if split else {})
        for k, split in enumerate(splits)
    ]
    if any(splits) and "train" not in splits:
        with pytest.raises(InputError, match="no training image"):
            for_training(records)
        return
    kept = {r["id"] for r in for_training(records)[0]}
    wanted = [k for k, split in enumerate(splits) if split == "train" or not any(splits)]
    assert kept == {str(k) for k in wanted}


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_no_image_of_validation_or_test_enters_a_pool(split, tmp_path_factory, cli, monkeypatch, seed):
    """Over random splits: what is opened, what is written and what is named are images of training alone."""
    from wbctool.naturalizing import cutting

    place = tmp_path_factory.mktemp("property")
    rng = np.random.default_rng(seed)
    records = [{**r, "split": str(rng.choice(["train", "val", "test"], p=[0.5, 0.2, 0.3]))} for r in split]
    held = {r["path"] for r in records if r["split"] != "train"} | {r["mask"] for r in records if r["split"] != "train"}
    opened = []
    for name in ("read_image", "read_coded", "read_labels"):
        real = getattr(cutting, name)
        monkeypatch.setattr(
            cutting, name, lambda path, *more, real=real: (opened.append(str(path)), real(path, *more))[1]
        )
    words = ("naturalize", write(place / "in.jsonl", records), "-o", place / "out", "--add", 2, "--jobs", 1)
    done = cli(*words)
    assert done.code in (0, 3, 4), done.err  # by chance a class has no cell, or no second field to lay it in
    monkeypatch.undo()
    assert opened
    assert not held & set(opened)
    training = {r["id"] for r in records if r["split"] == "train"}
    assert {r["id"] for r in read(place / "out" / "pool" / "records.jsonl")} == training
    for record in done.records:
        if record["schema"] == "wbctool.error/1":
            continue
        assert set(record["sources"]) <= training
        assert record["split"] == "train"


def test_a_pool_of_another_split_is_refused(made, split, tmp_path):
    swapped = [{**r, "split": {"train": "test", "test": "train"}.get(r["split"], r["split"])} for r in split]
    words = ("-o", tmp_path / "out", "--pool", made / "out" / "pool", "--add", 1)
    done = in_shell("naturalize", write(tmp_path / "swapped.jsonl", swapped), *words)
    assert done.code == 2
    assert "made of other training images" in done.err
    assert not (tmp_path / "out").exists()


# What a person does to the pool.


def test_parts_removed_by_hand_are_not_used(made, tmp_path):
    shutil.copytree(made / "out" / "pool", tmp_path / "pool")
    gone = sorted((tmp_path / "pool" / "wbc" / "monocyte").rglob("*.png"))[0]
    field = sorted((tmp_path / "pool" / "field").rglob("*.jpg"))[0]
    names = [path.relative_to(tmp_path / "pool").as_posix() for path in (gone, field)]
    gone.unlink(), field.unlink()
    pool, whole = read_pool(tmp_path / "pool"), read_pool(made / "out" / "pool")
    assert pool.pruned == 2
    assert len(pool.subjects["monocyte"]) == len(whole.subjects["monocyte"]) - 1
    assert len(pool.fields) == len(whole.fields) - 1
    words = ("naturalize", made / "split.jsonl", "-o", tmp_path / "out", "--pool", tmp_path / "pool", "--add", 3)
    done = in_shell(*words)
    assert done.code == 0
    assert "2 parts of the pool were removed by hand" in done.err
    pieces = {r["id"]: r["pool"] for r in read(tmp_path / "pool" / "records.jsonl")}
    for record in done.records:
        assert pieces[record["naturalize"]["cell"]["source"]]["subject"]["file"] != names[0]
        assert pieces[record["naturalize"]["field"]]["field"]["file"] != names[1]


def test_a_pool_that_names_files_outside_is_refused(made, tmp_path):
    shutil.copytree(made / "out" / "pool", tmp_path / "pool")
    records = read(tmp_path / "pool" / "records.jsonl")
    records[0]["pool"]["subject"]["file"] = "../../secret.png"
    write(tmp_path / "pool" / "records.jsonl", records)
    words = ("naturalize", made / "split.jsonl", "-o", tmp_path / "out", "--pool", tmp_path / "pool", "--add", 1)
    done = in_shell(*words)
    assert done.code == 3
    assert "lies outside the pool" in done.err


# Which images serve.


def cell(kind, x=50, y=50, edge=False):
    return {"value": 1, "kind": kind, "bbox": [x, y, 9, 9], "area": 60, "centroid": [x, y], "edge": edge}


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ([cell("wbc"), cell("wbc", 10, 10)], "2 white cells"),
        ([cell("wbc", edge=True)], "its cell is cut by the edge"),
        ([cell("rbc")], "neither a white cell nor a platelet"),
        ([cell("wbc"), cell("platelet")], ""),
        ([cell("platelet", 10, 10), cell("platelet", 48, 52)], ""),
    ],
)
def test_one_subject(cells, why):
    record = {"schema": "wbctool.mask/1", "id": "a", "mask": "m", "size": [100, 100], "cells": cells}
    found, told = subject_of(record)
    assert told == why
    if not why:
        assert found is cells[-1] or found["kind"] == "wbc"


def test_odd_ones_are_named():
    rng = np.random.default_rng(0)
    area = lambda: float(np.exp(rng.normal(8, 0.1)))  # noqa: E731
    usual = [
        {"label": "LY", "kind": "wbc", "area": a, "nucleus": 0.8 * a, "central": True}
        for a in (area() for _ in range(30))
    ]
    huge = {"label": "LY", "kind": "wbc", "area": 40_000.0, "nucleus": 32_000.0, "central": True}
    other = {"label": "LY", "kind": "platelet", "area": 300.0, "nucleus": 0, "central": True}
    aside = {**usual[0], "central": False}
    found = odd_ones([*usual, huge, other, aside])
    assert {k: why.split(" ")[0] for k, why in found.items() if k >= 30} == {30: "size", 31: "a", 32: "its"}
    assert not [k for k in found if k < 30]


def test_left_out_images_are_listed(made, split, tmp_path):
    records = [dict(r) for r in split]
    chosen = next(r for r in records if r["split"] == "train" and r["label"] == "band")
    white = next(c for c in chosen["cells"] if c["kind"] == "wbc")
    chosen["cells"] = [*chosen["cells"], {**white, "value": 200}]
    done = in_shell("naturalize", write(tmp_path / "s.jsonl", records), "-o", tmp_path / "out", "--add", 0)
    assert done.code == 0, done.err
    lines = (tmp_path / "out" / "pool" / "left-out.csv").read_text().splitlines()
    assert lines[0] == "image,label,reason"
    assert f"{chosen['id']},band,2 white cells" in lines
    assert "2 white cells" in done.err


# The parts.


def test_blocks_are_taken_whole_unless_another_cell_is_in_them():
    image, patch = np.zeros((32, 32, 3), np.float32), np.full((32, 32, 3), 100, np.float32)
    wanted, kept = np.zeros((32, 32), bool), np.zeros((32, 32), bool)
    wanted[10, 10] = wanted[26, 26] = kept[31, 31] = True
    out = replaced(image, patch, wanted, kept)[..., 0]
    assert (out[8:16, 8:16] == 100).all()
    assert 0 < out[26, 26] < 100  # a soft seam
    assert out[31, 31] < 1
    outside = np.ones((32, 32), bool)
    outside[8:16, 8:16] = outside[24:, 24:] = False
    assert not out[outside].any()


def test_the_light_of_a_slide_is_found_under_cells():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:240, 0:320]
    slide = 200 + 20 * (columns / 320) - 10 * (rows / 240) ** 2
    image = np.repeat(slide[..., None], 3, 2) + rng.normal(0, 2, (240, 320, 3))
    cells = (rows - 120) ** 2 + (columns - 160) ** 2 < 60**2
    image[cells] = 90
    found = fit_light(image.astype(np.float32), cells)
    there = light(found, (320, 240), (100, 60, 120, 120))
    assert np.abs(there[..., 0] - slide[60:180, 100:220]).max() < 1
    drawn = CleanSlide(image.astype(np.float32), cells, found, rng).everywhere
    assert np.abs(drawn[cells].mean() - slide[cells].mean()) < 0.5
    assert abs(drawn[cells].std() - np.hypot(2, slide[cells].std())) < 0.3


# What cannot be done.


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "say how many composites to make"),
        (("--add", 1, "--balance-to", 5), 2, "one of them"),
        (("--set", "3k"), 2, "choose from 419-pmy, 1k, 2k, 1k-class"),
        (("--set", "1k"), 3, "class BNE: has no training image (classes here: band, "),
        (("--add", 1, "--classes", "PMY"), 3, "class PMY: has no training image"),
        (("--add", 1, "--algorithm", "best"), 2, "choose from natural, paper"),
        (("--add", 1, "--rbc", 500), 4, "500 red cells have no room"),
        (("--add", 1, "--rbc", 500, "--algorithm", "paper"), 4, "and 500 red cells have no room in 160×160"),
    ],
)
def test_what_cannot_be_done_is_told(made, tmp_path, words, code, told):
    done = in_shell("naturalize", made / "split.jsonl", "-o", tmp_path / "out", "--pool", made / "out" / "pool", *words)
    assert done.code == code, done.err
    assert told in done.err
    assert "Traceback" not in done.err
    if code != 4:
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: {**r, "synthetic": True}, "is a composite itself"),
        (lambda r: {**r, "split": "test"}, "no training image to make composites of: 48 images of test"),
        (lambda r: {k: v for k, v in r.items() if k != "mask"}, "has no mask; run `wbctool segment` first"),
    ],
)
def test_input_that_does_not_serve(split, tmp_path, change, told):
    records = [change(r) for r in split]
    count = len(records)
    done = in_shell("naturalize", write(tmp_path / "s.jsonl", records), "-o", tmp_path / "out", "--add", 1)
    assert done.code == 3
    assert told.replace("48", str(count)) in done.err
    assert not (tmp_path / "out").exists()


def test_a_class_of_which_no_image_serves(made, split, tmp_path):
    records = []
    for record in split:
        cells = [c for c in record["cells"] if c["kind"] == "rbc"] if record["label"] == "band" else record["cells"]
        records.append({**record, "cells": cells})
    words = ("naturalize", write(tmp_path / "s.jsonl", records), "-o", tmp_path / "out")
    done = in_shell(*words, "--add", 2)
    assert done.code == 3
    assert "class band: none of its 2 training images gave a cell to the pool" in done.err
    assert "neither a white cell nor a platelet" in done.err
    assert not (tmp_path / "out" / "band").exists()
    assert in_shell(*words, "--add", 2, "--classes", "monocyte").code == 0


def test_without_red_cells_there_is_no_paper(split, tmp_path):
    records = [{**r, "cells": [c for c in r["cells"] if c["kind"] != "rbc"]} for r in split]
    words = ("naturalize", write(tmp_path / "s.jsonl", records), "-o", tmp_path / "out", "--algorithm", "paper")
    done = in_shell(*words, "--add", 1)
    assert done.code == 4
    assert "no whole red cell is in the pool" in done.err


def test_a_damaged_image_is_listed_and_the_others_serve(split, tmp_path):
    records = [dict(r) for r in split]
    bad = next(r for r in records if r["split"] == "train")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    bad["path"] = str(tmp_path / "bad.jpg")
    done = in_shell("naturalize", write(tmp_path / "s.jsonl", records), "-o", tmp_path / "out", "--add", 1)
    assert done.code == 4
    assert "bad.jpg" in done.err
    assert len([r for r in done.records if r.get("synthetic")]) == 8
    assert "bad.jpg" in (tmp_path / "out" / "pool" / "left-out.csv").read_text()


def test_an_output_that_cannot_be_written(made, tmp_path):
    (tmp_path / "out").write_text("a file")
    done = in_shell("naturalize", made / "split.jsonl", "-o", tmp_path / "out", "--add", 1)
    assert done.code == 3
    assert str(tmp_path / "out") in done.err
    assert "Traceback" not in done.err


@pytest.mark.data
@pytest.mark.slow
def test_natural_composites_are_hard_to_tell_from_real_fields(tmp_path, monkeypatch):
    """The benchmark, small: cells and fields of one half of the PBC images, told from the other half."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))
    import composites

    sets = composites.make_sets(tmp_path, 30, ("natural",))
    found = composites.auc(*(composites.seen(sets[name])[:, : -composites.GRID] for name in ("real", "natural")))
    assert max(found.values()) <= 0.8, found
