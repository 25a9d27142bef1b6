"""Cells against experts' boxes."""

import json

import numpy as np
import pytest
from conftest import read_records, write_records, write_yolo
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wbctool.errors import InputError
from wbctool.evaluation.detection import average_precision, match
from wbctool.inputs.boxes import Box, find_boxes, parse_kinds

NAMES = {"wbc": "WBC", "rbc": "RBC", "platelet": "Platelets"}


def corners(cell):
    x, y, width, height = cell["bbox"]
    return x, y, x + width, y + height


def write_voc(folder, records):
    for record in records:
        objects = "".join(
            f"<object><name>{NAMES[cell['kind']]}</name><bndbox>"
            + "".join(
                f"<{side}>{v}</{side}>" for side, v in zip(("xmin", "ymin", "xmax", "ymax"), corners(cell), strict=True)
            )
            + "</bndbox></object>"
            for cell in record["cells"]
        )
        file = (folder / record["id"]).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<annotation>{objects}</annotation>")
    return folder


def write_coco(file, records):
    numbers = {kind: index for index, kind in enumerate(NAMES)}
    annotations = [
        {"id": 0, "image_id": index, "category_id": numbers[cell["kind"]], "bbox": cell["bbox"]}
        for index, record in enumerate(records)
        for cell in record["cells"]
    ]
    file.write_text(
        json.dumps(
            {
                "images": [{"id": index, "file_name": record["id"]} for index, record in enumerate(records)],
                "categories": [{"id": number, "name": NAMES[kind]} for kind, number in numbers.items()],
                "annotations": annotations,
            }
        )
    )
    return file


@pytest.mark.parametrize("form", ["voc", "yolo", "coco"])
def test_cells_agree_with_their_own_boxes_in_every_format(form, cli, masks, tmp_path):
    records = [r for r in read_records(masks / "records.jsonl") if "cells" in r]
    write = {"voc": write_voc, "yolo": write_yolo, "coco": write_coco}[form]
    truth = write(tmp_path / ("boxes.json" if form == "coco" else "boxes"), records)
    kinds = ("--kinds", "0=wbc,1=rbc,2=platelet") if form == "yolo" else ()
    report = json.loads(cli("evaluate", masks, "--truth", truth, *kinds, "--json").out)
    assert report["schema"] == "wbctool.detection/1"
    for kind in NAMES:
        count = sum(cell["kind"] == kind for record in records for cell in record["cells"])
        assert (report[f"{kind}_boxes"], report[f"{kind}_cells"]) == (count, count)
        if count:
            assert (report[f"{kind}_recall"], report[f"{kind}_precision"], report[f"{kind}_f1"]) == (1, 1, 1)


def test_recall_and_precision_count_pairs_at_half_overlap(cli, masks, tmp_path):
    records = [r for r in read_records(masks / "records.jsonl") if "cells" in r][:3]
    white = [[c for c in r["cells"] if c["kind"] == "wbc"] for r in records]
    truth = [{**r, "cells": [*w, {"kind": "wbc", "bbox": [0, 0, 5, 5]}]} for r, w in zip(records, white, strict=True)]
    found = write_records(tmp_path / "r.jsonl", records)
    report = json.loads(cli("evaluate", found, "--truth", write_voc(tmp_path / "boxes", truth), "--json").out)
    count = sum(map(len, white))
    assert report["wbc_recall"] == pytest.approx(count / (count + 3))
    assert report["wbc_precision"] == 1
    assert report["rbc_cells"] > 0
    assert report["rbc_recall"] is report["rbc_precision"] is report["rbc_f1"] is None


def test_a_pair_takes_each_box_and_each_cell_once():
    truth = [Box("wbc", 0, 0, 10, 10), Box("wbc", 30, 30, 40, 40), Box("rbc", 0, 0, 10, 10)]
    cells = [Box("wbc", 0, 0, 10, 9), Box("wbc", 0, 0, 10, 10), Box("rbc", 30, 30, 40, 40), Box("wbc", 34, 30, 44, 40)]
    assert match(truth, cells) == [False, True, False, False]


def test_average_precision_equals_that_of_coco():
    rng = np.random.default_rng(0)
    images, boxes, detections, scores, hits = [], [], [], [], []
    for image in range(8):
        images.append({"id": image, "width": 1000, "height": 1000})
        for number in range(6):
            left, top = 150.0 * number, 100.0 * image
            boxes.append([image, [left, top, 60.0, 60.0]])
            if rng.random() < 0.8:
                score, is_right = float(rng.random()), bool(rng.random() < 0.7)
                box = [left + (0 if is_right else 50.0), top, 60.0, 60.0]
                detections.append({"image_id": image, "category_id": 1, "bbox": box, "score": score})
                scores.append(score)
                hits.append(is_right)
    truth = COCO()
    truth.dataset = {
        "images": images,
        "categories": [{"id": 1, "name": "wbc"}],
        "annotations": [
            {"id": i + 1, "image_id": image, "category_id": 1, "bbox": box, "area": 3600.0, "iscrowd": 0}
            for i, (image, box) in enumerate(boxes)
        ],
    }
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(detections), "bbox")
    judge.params.iouThrs = np.array([0.5])
    judge.evaluate()
    judge.accumulate()
    expected = judge.eval["precision"][0, :, 0, 0, -1].mean()
    assert average_precision(scores, hits, len(boxes)) == pytest.approx(expected, abs=1e-9)


def test_what_is_wrong_with_boxes_is_said(cli, masks, tmp_path):
    def error(*words):
        done = cli("evaluate", masks, "--truth", *words)
        assert done.out == ""
        return done.code, done.err

    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "a.xml").write_text("<annotation")
    code, message = error(tmp_path / "voc")
    assert code == 3
    assert "no image pairs" in message
    records = [r for r in read_records(masks / "records.jsonl") if "cells" in r]
    yolo = write_yolo(tmp_path / "yolo", records)
    code, message = error(yolo)
    assert code == 2
    assert "--kinds" in message
    code, message = error(yolo, "--kinds", "0=cell")
    assert code == 2
    assert "platelet" in message
    code, message = error(yolo, "--which", "central")
    assert code == 2
    assert "--which" in message
    next(yolo.rglob("*.txt")).write_text("0 0.5 0.5 0.1 0.1\nno box at all here\n")
    code, message = error(yolo, "--kinds", "0=wbc,1=rbc,2=platelet")
    assert code == 3
    assert "line 2" in message
    (tmp_path / "coco.json").write_text('{"images": []}')
    code, message = error(tmp_path / "coco.json")
    assert code == 3
    assert "COCO" in message


@pytest.mark.parametrize(
    "line", ["0 120 80 40 40", "0 0.1 0.1 0.2 0.1 0.2 0.3", "0 0.5 0.5 0.1", "0 nan 0.5 0.1 0.1", "wbc 0.5 0.5 0.1 0.1"]
)
def test_a_line_of_another_format_is_no_box(line, tmp_path):
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1 0.9\n{line}\n")
    boxes = find_boxes(tmp_path, {"0": "wbc"})
    with pytest.raises(InputError, match=r"a\.txt line 2"):
        boxes.of("a", (100, 50))


def test_boxes_are_read_in_the_encoding_of_their_file(tmp_path):
    (tmp_path / "classes.txt").write_text("\ufeffWBC\n", "utf-8")
    (tmp_path / "a.txt").write_text("\ufeff0 0.5 0.5 0.5 0.5\n", "utf-8")
    assert find_boxes(tmp_path).of("a", (100, 40)) == [Box("wbc", 25, 10, 75, 30)]
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    xml = f'<?xml version="1.0" encoding="ISO-8859-1"?><a><t>é</t><object><name>WBC</name>{box}</object></a>'
    (tmp_path / "a.xml").write_text(xml, "latin-1")
    assert find_boxes(tmp_path).of("a", (100, 40)) == [Box("wbc", 1, 2, 3, 4)]


def test_coco_of_segment_is_truth_crowds_are_none_and_names_are_unique(cli, drawn, tmp_path):
    file = tmp_path / "cells.json"
    cli("segment", drawn / "images" / "band", "-o", tmp_path / "m", "--coco", file)
    done = cli("evaluate", tmp_path / "m", "--truth", file, "--json")
    assert json.loads(done.out)["wbc_f1"] == 1
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "WBC"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": crowd} for crowd in (0, 1)],
    }
    file.write_text(json.dumps(content))
    assert len(find_boxes(file).of("a", (10, 10))) == 1
    content["images"].append({"id": 2, "file_name": "a.png"})
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="two images"):
        find_boxes(file)


def test_boxes_without_area_overlap_nothing():
    assert Box("wbc", 0, 0, -20, 20).overlap(Box("wbc", 0, 0, 20, 20)) == 0


def test_a_text_file_beside_masks_is_no_yolo_file(tmp_path):
    (tmp_path / "README.txt").write_text("Masks by two experts\n")
    assert find_boxes(tmp_path) is None
    (tmp_path / "empty.txt").write_text("")
    assert find_boxes(tmp_path) is None
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert "a" in find_boxes(tmp_path).stems()
    assert parse_kinds("a=b=wbc, c=ignore") == {"a=b": "wbc", "c": "ignore"}
