"""The pool: of training images only, of usable ones, and without the parts that a person has removed."""

import shutil

import numpy as np
import pytest
from conftest import in_shell, read_records, write_records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wbctool.errors import InputError
from wbctool.naturalizing.background import fit_illumination, illumination, replace_region, synthesize_background
from wbctool.naturalizing.cutting import subject_of
from wbctool.naturalizing.plan import training_fields
from wbctool.naturalizing.pool import find_outliers, read_pool

# Nothing of validation or test enters a pool.


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["train", "val", "test", None]), min_size=1, max_size=20))
def test_only_training_records_are_used(splits):
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
            training_fields(records)
        return
    used = {r["id"] for r in training_fields(records)[0]}
    expected = [k for k, split in enumerate(splits) if split == "train" or not any(splits)]
    assert used == {str(k) for k in expected}


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_no_image_of_validation_or_test_enters_a_pool(split_fields, tmp_path_factory, cli, monkeypatch, seed):
    """With random splits, only training images are opened, written and named."""
    from wbctool.naturalizing import cutting

    folder = tmp_path_factory.mktemp("property")
    rng = np.random.default_rng(seed)
    records = [{**r, "split": str(rng.choice(["train", "val", "test"], p=[0.5, 0.2, 0.3]))} for r in split_fields]
    holdout = {r[key] for r in records if r["split"] != "train" for key in ("path", "mask")}
    opened = []
    for name in ("read_image", "read_coded", "read_labels"):
        real = getattr(cutting, name)
        monkeypatch.setattr(
            cutting, name, lambda path, *more, real=real: (opened.append(str(path)), real(path, *more))[1]
        )
    words = ("naturalize", write_records(folder / "in.jsonl", records), "-o", folder / "out", "--add", 2, "--jobs", 1)
    done = cli(*words)
    assert done.code in (0, 3, 4), done.err  # by chance a class has no cell, or no second field to lay it in
    monkeypatch.undo()
    assert opened
    assert not holdout & set(opened)
    training = {r["id"] for r in records if r["split"] == "train"}
    assert {r["id"] for r in read_records(folder / "out" / "pool" / "records.jsonl")} == training
    for record in done.records:
        if record["schema"] == "wbctool.error/1":
            continue
        assert set(record["sources"]) <= training
        assert record["split"] == "train"


def test_a_pool_of_another_split_is_refused(composites, split_fields, tmp_path):
    swapped = [{**r, "split": {"train": "test", "test": "train"}.get(r["split"], r["split"])} for r in split_fields]
    words = ("-o", tmp_path / "out", "--pool", composites / "out" / "pool", "--add", 1)
    done = in_shell("naturalize", write_records(tmp_path / "swapped.jsonl", swapped), *words)
    assert done.code == 2
    assert "made of other training images" in done.err
    assert not (tmp_path / "out").exists()


# Parts that a person has removed.


def test_parts_removed_by_hand_are_not_used(composites, tmp_path):
    shutil.copytree(composites / "out" / "pool", tmp_path / "pool")
    cut_out = sorted((tmp_path / "pool" / "wbc" / "monocyte").rglob("*.png"))[0]
    field = sorted((tmp_path / "pool" / "field").rglob("*.jpg"))[0]
    names = [path.relative_to(tmp_path / "pool").as_posix() for path in (cut_out, field)]
    cut_out.unlink(), field.unlink()
    pool, whole = read_pool(tmp_path / "pool"), read_pool(composites / "out" / "pool")
    assert pool.removed == 2
    assert len(pool.subjects["monocyte"]) == len(whole.subjects["monocyte"]) - 1
    assert len(pool.cleared) == len(whole.cleared) - 1
    words = ("naturalize", composites / "split.jsonl", "-o", tmp_path / "out", "--pool", tmp_path / "pool", "--add", 3)
    done = in_shell(*words)
    assert done.code == 0
    assert "2 parts of the pool removed by hand" in done.err
    parts = {r["id"]: r["pool"] for r in read_records(tmp_path / "pool" / "records.jsonl")}
    for record in done.records:
        assert parts[record["naturalize"]["cell"]["source"]]["subject"]["file"] != names[0]
        assert parts[record["naturalize"]["field"]]["field"]["file"] != names[1]


def test_a_pool_that_names_files_outside_is_refused(composites, tmp_path):
    shutil.copytree(composites / "out" / "pool", tmp_path / "pool")
    records = read_records(tmp_path / "pool" / "records.jsonl")
    records[0]["pool"]["subject"]["file"] = "../../secret.png"
    write_records(tmp_path / "pool" / "records.jsonl", records)
    words = ("naturalize", composites / "split.jsonl", "-o", tmp_path / "out", "--pool", tmp_path / "pool", "--add", 1)
    done = in_shell(*words)
    assert done.code == 3
    assert "lies outside the pool" in done.err


# Usable images.


def cell(kind, x=50, y=50, edge=False):
    return {"value": 1, "kind": kind, "bbox": [x, y, 9, 9], "area": 60, "centroid": [x, y], "edge": edge}


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([cell("wbc"), cell("wbc", 10, 10)], "2 white cells"),
        ([cell("wbc", edge=True)], "its cell is cut by the edge"),
        ([cell("rbc")], "neither a white cell nor a platelet"),
        ([cell("wbc"), cell("platelet")], ""),
        ([cell("platelet", 10, 10), cell("platelet", 48, 52)], ""),
    ],
)
def test_one_subject(cells, reason):
    record = {"schema": "wbctool.mask/1", "id": "a", "mask": "m", "size": [100, 100], "cells": cells}
    subject, message = subject_of(record)
    assert message == reason
    if not reason:
        assert subject is cells[-1] or subject["kind"] == "wbc"


def test_outliers_are_named():
    rng = np.random.default_rng(0)
    area = lambda: float(np.exp(rng.normal(8, 0.1)))  # noqa: E731
    usual = [
        {"label": "LY", "kind": "wbc", "area": a, "nucleus": 0.8 * a, "central": True}
        for a in (area() for _ in range(30))
    ]
    huge = {"label": "LY", "kind": "wbc", "area": 40_000.0, "nucleus": 32_000.0, "central": True}
    other = {"label": "LY", "kind": "platelet", "area": 300.0, "nucleus": 0, "central": True}
    aside = {**usual[0], "central": False}
    outliers = find_outliers([*usual, huge, other, aside])
    assert {k: reason.split(" ")[0] for k, reason in outliers.items() if k >= 30} == {30: "size", 31: "a", 32: "its"}
    assert not [k for k in outliers if k < 30]


def test_left_out_images_are_listed(composites, split_fields, tmp_path):
    records = [dict(r) for r in split_fields]
    chosen = next(r for r in records if r["split"] == "train" and r["label"] == "band")
    white = next(c for c in chosen["cells"] if c["kind"] == "wbc")
    chosen["cells"] = [*chosen["cells"], {**white, "value": 200}]
    words = ("naturalize", write_records(tmp_path / "s.jsonl", records), "-o", tmp_path / "out", "--add", 0)
    done = in_shell(*words)
    assert done.code == 0, done.err
    table = tmp_path / "out" / "pool" / "left-out.csv"
    lines = table.read_text().splitlines()
    assert lines[0] == "image,label,reason"
    assert f"{chosen['id']},band,2 white cells" in lines
    assert "1: 2 white cells" in done.err
    table.unlink()  # as where it was killed before the last file
    assert in_shell(*words).code == 0
    assert table.read_text().splitlines() == lines


# The parts.


def test_blocks_are_taken_whole_unless_another_cell_is_in_them():
    image, patch = np.zeros((32, 32, 3), np.float32), np.full((32, 32, 3), 100, np.float32)
    region, keep = np.zeros((32, 32), bool), np.zeros((32, 32), bool)
    region[10, 10] = region[26, 26] = keep[31, 31] = True
    out = replace_region(image, patch, region, keep)[..., 0]
    assert (out[8:16, 8:16] == 100).all()
    assert 0 < out[26, 26] < 100  # a soft seam
    assert out[31, 31] < 1
    outside = np.ones((32, 32), bool)
    outside[8:16, 8:16] = outside[24:, 24:] = False
    assert not out[outside].any()


def test_illumination_and_background_are_reconstructed_under_cells():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:240, 0:320]
    background = 200 + 20 * (columns / 320) - 10 * (rows / 240) ** 2
    image = np.repeat(background[..., None], 3, 2) + rng.normal(0, 2, (240, 320, 3))
    cells = (rows - 120) ** 2 + (columns - 160) ** 2 < 60**2
    image[cells] = 90
    coefficients = fit_illumination(image.astype(np.float32), cells)
    smooth = illumination(coefficients, (320, 240), (100, 60, 120, 120))
    assert np.abs(smooth[..., 0] - background[60:180, 100:220]).max() < 1
    drawn = synthesize_background(image.astype(np.float32), cells, coefficients, rng)
    assert np.abs(drawn[cells].mean() - background[cells].mean()) < 0.5
    assert abs(drawn[cells].std() - np.hypot(2, background[cells].std())) < 0.3
