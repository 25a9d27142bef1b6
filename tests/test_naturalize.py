"""Composites: exact masks, the same bytes with any number of processes or shards, and clear refusals."""

import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import contents, in_shell, read_records, write_records

from wbctool.naturalizing.plan import CompositeOptions, plan_composites
from wbctool.naturalizing.pool import read_pool


def absolute(records, folder):
    return [
        {**r, "path": str((folder / r["path"]).resolve()), "mask": str((folder / r["mask"]).resolve())} for r in records
    ]


def test_records_name_their_sources(composites, split_fields):
    sources = {r["id"]: r for r in split_fields}
    records = absolute(read_records(composites / "out" / "records.jsonl"), composites / "out")
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


def test_the_label_image_is_exact(composites):
    for record in absolute(read_records(composites / "out" / "records.jsonl"), composites / "out"):
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


def test_the_cell_is_that_of_its_source_and_the_rest_that_of_its_field(composites, split_fields):
    """The cell looks as in its source; far from it, and from what made room, the field is untouched."""
    sources = {r["id"]: r for r in split_fields}
    for record in absolute(read_records(composites / "out" / "records.jsonl"), composites / "out")[::5]:
        image = cv2.imread(record["path"]).astype(float)
        made = record["naturalize"]
        field = cv2.imread(sources[made["field"]]["path"]).astype(float)
        field_labels = cv2.imread(sources[made["field"]]["mask"], cv2.IMREAD_UNCHANGED)
        labels = cv2.imread(record["mask"], cv2.IMREAD_UNCHANGED)
        changed = cv2.absdiff(image, field).max(2) > 6
        subject = max((c for c in record["cells"] if c["kind"] in ("wbc", "platelet")), key=lambda c: c["area"])
        near = np.zeros(labels.shape, np.uint8)
        x, y = made["cell"]["at"]
        near[labels == subject["value"]] = 1
        old = [c for c in sources[made["field"]]["cells"] if c["kind"] != "rbc"]
        for cell in old:
            near[(field_labels == cell["value"]) | (field_labels == cell.get("nucleus", {}).get("value", -1))] = 1
        # red cells that made room
        near[(field_labels > 0) & (labels == 0)] = 1
        reach = cv2.dilate(near, np.ones((35, 35), np.uint8)) > 0
        assert not (changed & ~reach).any()
        source = sources[made["cell"]["source"]]
        source_image = cv2.imread(source["path"])
        cell = next(c for c in source["cells"] if c["kind"] == subject["kind"] and c["area"] >= subject["area"])
        left, top, wide, high = (int(v) for v in cell["bbox"])
        mean = source_image[top : top + high, left : left + wide].mean((0, 1))
        x, y, wide, high = subject["bbox"]
        assert np.abs(image[y : y + high, x : x + wide].mean((0, 1)) - mean).max() < 25


@pytest.mark.parametrize("mode", ["jobs", "shards"])
def test_processes_and_shards_give_the_same_bytes(composites, tmp_path, mode):
    words = (
        "naturalize",
        composites / "split.jsonl",
        "-o",
        tmp_path / "out",
        "--pool",
        composites / "out" / "pool",
        "--add",
        4,
    )
    if mode == "jobs":
        assert in_shell(*words, "--jobs", 2).code == 0
    else:
        lines = [in_shell(*words, "--shard", shard).records for shard in ("2/3", "1/3", "3/3")]
        ids = [record["id"] for records in lines for record in records]
        assert len(ids) == len(set(ids)) == 32
    files, expected = contents(tmp_path / "out"), contents(composites / "out")
    images = {name: data for name, data in expected.items() if name.endswith((".jpg", ".png")) and "pool" not in name}
    assert len(images) == 64
    assert {name: files[name] for name in images} == images
    if mode == "jobs":
        assert files["records.jsonl"] == expected["records.jsonl"]


def test_a_pool_made_by_two_processes_is_the_same(composites, tmp_path):
    out = tmp_path / "out"
    assert in_shell("naturalize", composites / "split.jsonl", "-o", out, "--add", 0, "--jobs", 2).code == 0
    files, expected = contents(out / "pool"), contents(composites / "out" / "pool")
    files.pop("records.jsonl"), expected.pop("records.jsonl")  # paths are relative to another folder
    assert files == expected


def test_killed_and_run_again_it_ends_in_the_same_bytes(composites, tmp_path):
    words = ("naturalize", composites / "split.jsonl", "--add", 4, "--jobs", 1, "-q", "-o")
    whole = in_shell(*words, tmp_path / "whole", cwd=tmp_path, env={"EVENTS": str(tmp_path / "events")})
    assert whole.code == 0, whole.err
    events, rng = int((tmp_path / "events").read_text()), random.Random(0)
    for _ in range(4):  # each time at a fixed change of a file
        moment = rng.randint(1, events // 2)
        assert in_shell(*words, tmp_path / "out", cwd=tmp_path, env={"KILL_AT": str(moment)}).code != 0
    done = in_shell(*words, tmp_path / "out")
    assert done.code == 0, done.err
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_composites_are_cropped_and_trained_on(composites, masks, split_fields, tmp_path):
    write_records(tmp_path / "split.jsonl", split_fields)
    assert in_shell("crop", composites / "out", "-o", tmp_path / "grown", "--size", 32).code == 0
    assert in_shell("crop", tmp_path / "split.jsonl", "-o", tmp_path / "cells", "--size", 32).code == 0
    grown = read_records(tmp_path / "grown" / "records.jsonl")
    assert all(r["synthetic"] and r["sources"] for r in grown)
    words = ("--backbone", "resnet10t", "--weights", "none", "--size", 32, "--epochs", 1, "--batch-size", 8, "-q")
    done = in_shell("train", tmp_path / "cells", tmp_path / "grown", "-o", tmp_path / "run", *words)
    assert done.code == 0, done.err
    assert not any(r.get("synthetic") for r in read_records(tmp_path / "run" / "predictions.jsonl"))
    trained = [r for r in read_records(tmp_path / "run" / "dataset.jsonl") if r["split"] == "train"]
    assert sum(bool(r.get("synthetic")) for r in trained) == 32


def two_of_each(composites, out, *more):
    """`naturalize` into another folder from the pool that there is."""
    pool = composites / "out" / "pool"
    return in_shell("naturalize", composites / "split.jsonl", "-o", out, "--pool", pool, "--add", 2, *more)


def test_paper_lays_cells_on_a_background_without_overlapping_boxes(composites, tmp_path):
    done = two_of_each(composites, tmp_path, "--algorithm", "paper", "--rbc", 3)
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
def test_the_number_of_red_cells_is_as_wanted(composites, tmp_path, count):
    done = two_of_each(composites, tmp_path, "--rbc", count)
    assert done.code == 0, done.err
    for record in done.records:
        assert sum(cell["kind"] == "rbc" for cell in record["cells"]) == count


def test_cells_are_used_evenly(composites, tmp_path):
    pool = read_pool(composites / "out" / "pool")
    uses = {}
    for record in plan_composites(pool, {"monocyte": 7}, CompositeOptions(add=7), tmp_path):
        uses[record["naturalize"]["cell"]] = uses.get(record["naturalize"]["cell"], 0) + 1
    assert len(uses) == len(pool.subjects["monocyte"])
    assert max(uses.values()) - min(uses.values()) <= 1


def test_a_million_composites_are_planned_in_flat_memory(composites, tmp_path):
    import tracemalloc

    pool = read_pool(composites / "out" / "pool")
    amounts = {"monocyte": 500_000, "band": 500_000}
    plan = plan_composites(pool, amounts, CompositeOptions(add=500_000), tmp_path)
    tracemalloc.start()
    peaks = []
    for _ in range(2):
        ids = {record["id"] for _, record in zip(range(20_000), plan, strict=False)}
        assert len(ids) == 20_000
        del ids
        tracemalloc.reset_peak()
        assert sum(1 for _ in zip(range(10_000), plan, strict=False)) == 10_000
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20_000


# Refusals.


@pytest.mark.parametrize(
    ("words", "code", "message"),
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
def test_invalid_options_are_refused(composites, tmp_path, words, code, message):
    done = in_shell(
        "naturalize", composites / "split.jsonl", "-o", tmp_path / "out", "--pool", composites / "out" / "pool", *words
    )
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    if code != 4:
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {**r, "synthetic": True}, "is a composite itself"),
        (lambda r: {**r, "split": "test"}, "no training image to make composites of: 48 images of test"),
        (lambda r: {k: v for k, v in r.items() if k != "mask"}, "has no mask; run `wbctool segment` first"),
        (
            lambda r: {**r, "cells": [{**c, "nucleus": {"value": 2, "area": c["area"]}} for c in r["cells"]]},
            "the masks hold nuclei only (method unet), and composites need whole cells",
        ),
    ],
)
def test_unusable_records_are_refused(split_fields, tmp_path, change, message):
    records = [change(r) for r in split_fields]
    count = len(records)
    done = in_shell("naturalize", write_records(tmp_path / "s.jsonl", records), "-o", tmp_path / "out", "--add", 1)
    assert done.code == 3
    assert message.replace("48", str(count)) in done.err
    assert not (tmp_path / "out").exists()


def test_a_class_without_usable_images_is_refused(composites, split_fields, tmp_path):
    records = []
    for record in split_fields:
        cells = [c for c in record["cells"] if c["kind"] == "rbc"] if record["label"] == "band" else record["cells"]
        records.append({**record, "cells": cells})
    words = ("naturalize", write_records(tmp_path / "s.jsonl", records), "-o", tmp_path / "out")
    done = in_shell(*words, "--add", 2)
    assert done.code == 3
    assert "class band: none of its 2 training images" in done.err
    assert "neither a white cell nor a platelet" in done.err
    assert not (tmp_path / "out" / "band").exists()
    assert in_shell(*words, "--add", 2, "--classes", "monocyte").code == 0


def test_paper_needs_red_cells_or_rbc_0(split_fields, tmp_path):
    records = [{**r, "cells": [c for c in r["cells"] if c["kind"] != "rbc"]} for r in split_fields]
    words = ("naturalize", write_records(tmp_path / "s.jsonl", records), "-o", tmp_path / "out", "--algorithm", "paper")
    done = in_shell(*words, "--add", 1)
    assert done.code == 3
    assert "fields gave a whole red cell; give --rbc 0" in done.err
    assert in_shell(*words, "--add", 1, "--rbc", 0).code == 0


def test_a_damaged_image_is_listed_and_the_others_are_used(split_fields, tmp_path):
    records = [dict(r) for r in split_fields]
    bad = next(r for r in records if r["split"] == "train")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    bad["path"] = str(tmp_path / "bad.jpg")
    done = in_shell("naturalize", write_records(tmp_path / "s.jsonl", records), "-o", tmp_path / "out", "--add", 1)
    assert done.code == 4
    assert "bad.jpg" in done.err
    assert len([r for r in done.records if r.get("synthetic")]) == 8
    assert "bad.jpg" in (tmp_path / "out" / "pool" / "left-out.csv").read_text()


def test_an_output_that_cannot_be_written(composites, tmp_path):
    (tmp_path / "out").write_text("a file")
    done = in_shell("naturalize", composites / "split.jsonl", "-o", tmp_path / "out", "--add", 1)
    assert done.code == 3
    assert str(tmp_path / "out") in done.err
    assert "Traceback" not in done.err


@pytest.mark.data
@pytest.mark.slow
def test_natural_composites_are_hard_to_tell_from_real_fields(tmp_path, monkeypatch):
    """The benchmark, small: cells and fields of one half of the PBC images, against the other half."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))
    import composites  # of the benchmarks

    sets = composites.make_sets(tmp_path, 30, ("natural",), every=2)
    real, natural = (composites.measure(sets[name])[:, : -composites.GRID] for name in ("real", "natural"))
    areas = composites.auc(real, natural)
    assert max(areas.values()) <= 0.8, areas
