"""Masks against truth."""

import json

import cv2
import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from wbctool.errors import UsageProblem
from wbctool.evaluation.agreement import overlap, parse_grey_values


def test_overlap_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for fraction in (0.1, 0.5, 0.9):
        truth, predicted = rng.random((2, 40, 30)) < fraction
        flat = truth.ravel(), predicted.ravel()
        expected = [measure(*flat) for measure in (f1_score, jaccard_score, precision_score, recall_score)]
        assert np.allclose(overlap(predicted, truth), expected)
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    assert overlap(empty, empty) == (1, 1, 1, 1)
    assert overlap(empty, full) == (0, 0, 0, 0) == overlap(full, empty)


def test_grey_values_are_read_by_name():
    assert parse_grey_values(None) is None
    assert parse_grey_values("rbc=7, platelet=9") == {"rbc": 7, "platelet": 9}
    for text in ("nucleus", "nucleus=0", "nose=3", "cell=5,cell=6", "cell=5,rbc=5", "cell=x", ""):
        with pytest.raises(UsageProblem, match="--truth-values"):
            parse_grey_values(text)


VALUES = ("--truth-values", "nucleus=255,cell=128,rbc=60,platelet=30")


def test_each_object_is_measured_pixel_by_pixel(cli, masks, experts):
    done = cli("evaluate", masks, "--truth", experts, *VALUES, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    records = [json.loads(line) for line in (masks / "records.jsonl").read_text().splitlines()]
    expected = {name: [] for name in ("nucleus", "cell", "rbc", "platelet")}
    for record in records:
        path = (experts / record["id"]).with_suffix(".png")
        if not path.exists():
            continue
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        labels = cv2.imread(str(masks / record["mask"]), cv2.IMREAD_UNCHANGED)
        of = {kind: [c for c in record["cells"] if c["kind"] == kind] for kind in ("wbc", "rbc", "platelet")}
        nuclei = np.isin(labels, [c["nucleus"]["value"] for c in of["wbc"]])
        pairs = {
            "nucleus": (nuclei, truth == 255),
            "cell": (nuclei | np.isin(labels, [c["value"] for c in of["wbc"]]), truth >= 128),
            "rbc": (np.isin(labels, [c["value"] for c in of["rbc"]]), truth == 60),
            "platelet": (np.isin(labels, [c["value"] for c in of["platelet"]]), truth == 30),
        }
        for name, (predicted, true) in pairs.items():
            expected[name].append(f1_score(true.ravel(), predicted.ravel(), zero_division=1.0))
    assert report["n"] == len(expected["cell"]) == len(records) - 1
    for name, dice in expected.items():
        assert report[f"{name}_dice"] == pytest.approx(np.mean(dice))
        assert report[f"{name}_under_0.8"] == pytest.approx(np.mean(np.array(dice) < 0.8))
        assert report["worst"][name][0]["dice"] == pytest.approx(min(dice))
    assert report["seconds"] == pytest.approx(np.mean([r["seconds"] for r in records[1:]]), rel=0.5)
    assert report["cell_dice"] > 0.9
    assert "1 images have no truth and were left out" in done.err


def test_methods_stand_side_by_side(cli, drawn, masks, experts, tmp_path):
    cli("segment", drawn / "images", "-o", tmp_path / "hed", "--method", "hed", "--jobs", 1)
    done = cli("evaluate", masks, tmp_path / "hed", "--truth", experts, "--which", "central", "--quiet")
    assert done.code == 0, done.err
    assert done.err == ""
    for line in ("nucleus: mean over images", "cell: mean over images"):
        assert line in done.out
    assert " unet " in done.out
    assert " hed " in done.out
    alone = cli("evaluate", tmp_path / "hed", "--truth", experts, "--quiet")
    assert "Worst images" in alone.out


def test_an_image_that_failed_scores_nothing(cli, masks, experts, tmp_path):
    lines = (masks / "records.jsonl").read_text().splitlines()
    record = json.loads(lines[1])
    failed = {"schema": "wbctool.error/1", "id": record["id"], "path": record["path"], "error": "damaged"}
    (tmp_path / "one.jsonl").write_text(json.dumps(failed) + "\n")
    done = cli("evaluate", tmp_path / "one.jsonl", "--truth", experts, "--json")
    report = json.loads(done.out)
    assert (report["n"], report["failed"], report["cell_dice"], report["seconds"]) == (1, 1, 0, None)
    assert "1 images have no mask and score 0" in done.err


def test_unusable_truth_and_masks_are_one_line(cli, drawn, masks, experts, cells, tmp_path):
    small = tmp_path / "small"
    for path in experts.rglob("*.png"):
        other = small / path.relative_to(experts)
        other.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(other), np.zeros((5, 6), np.uint8))
    (tmp_path / "empty").mkdir()
    (tmp_path / "unpaired").mkdir()
    cv2.imwrite(str(tmp_path / "unpaired" / "x.png"), np.zeros((5, 6), np.uint8))
    formats = {"colour": (0, 0, 200), "whole": 255, "numbers": 1}
    for name, value in formats.items():
        for path in experts.rglob("*.png"):
            other = tmp_path / name / path.relative_to(experts)
            other.parent.mkdir(parents=True, exist_ok=True)
            grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            image = np.zeros((*grey.shape, 3) if name == "colour" else grey.shape, np.uint8)
            image[grey > 100] = value
            cv2.imwrite(str(other), image)
    line = (masks / "records.jsonl").read_text().splitlines()[1]
    record = {**json.loads(line), "mask": None}
    (tmp_path / "twice.jsonl").write_text(f"{json.dumps({**record, 'schema': 'wbctool.error/1', 'error': 'x'})}\n" * 2)
    (tmp_path / "sizeless.jsonl").write_text(json.dumps({**record, "size": None}) + "\n")
    (tmp_path / "damaged.jsonl").write_text(line.replace('"centroid":[', '"centroid":["a",', 1) + "\n")
    cases = [
        ((masks, "--truth", tmp_path / "colour"), 3, "is a colour image; give grey masks"),
        ((masks, "--truth", tmp_path / "whole"), 3, "no truth mask has cell=128; name the grey values"),
        ((masks, "--truth", tmp_path / "numbers"), 3, "no truth mask has nucleus=255, cell=128"),
        ((tmp_path / "twice.jsonl", "--truth", experts), 3, "two records pair with"),
        ((tmp_path / "sizeless.jsonl", "--truth", experts), 3, "has no mask; run"),
        ((tmp_path / "damaged.jsonl", "--truth", experts), 3, "damaged.jsonl line 1: cells.0.centroid"),
        ((masks, "--truth", experts, "--truth-values", "nucleus=²"), 2, "--truth-values"),
        ((masks, "--truth", small), 3, "the truth is 6×5, its image 160×160"),
        ((masks, "--truth", tmp_path / "nothing"), 3, "no such folder"),
        ((masks, "--truth", tmp_path / "empty"), 3, "holds no images"),
        ((masks, "--truth", tmp_path / "unpaired"), 3, "no image pairs with a truth mask"),
        ((drawn / "images", "--truth", experts), 3, "has no mask; run `wbctool segment`"),
        ((masks, "--truth", experts, "--which", "largest"), 2, "choose from all, central"),
        ((masks, "--truth", experts, "--split", "test"), 2, "--split is for predictions"),
        ((masks, "--truth-values", "cell=3"), 2, "go with --truth"),
    ]
    for words, code, message in cases:
        done = cli("evaluate", *words)
        assert (done.code, done.out) == (code, ""), (words, done.err)
        assert message in done.err
        assert len(done.err.splitlines()) == 1
