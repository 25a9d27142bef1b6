"""Quality of cells, and warnings about images."""

import numpy as np
import pytest
from conftest import read_records, write_records

from wbctool.imaging.label_image import Objects, Region, to_labels
from wbctool.records.cells import choose_cells
from wbctool.segmentation.image_warnings import warnings_of


def cell(kind, area, **more):
    return {"kind": kind, "area": area, **more}


def white(area=1000, nucleus=400, **more):
    return cell("wbc", area, nucleus={"value": 2, "area": nucleus}, **more)


def test_an_image_without_doubts_has_no_warnings():
    assert warnings_of([white(), *[cell("rbc", 500)] * 3, cell("platelet", 100)]) == {}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([], {"no_white_cell": 1}),
        (
            [*[cell("rbc", 500)] * 3, cell("platelet", 410), cell("platelet", 390)],
            {"no_white_cell": 1, "giant_platelets": 1},
        ),
        ([white(), cell("platelet", 360), cell("platelet", 340)], {"giant_platelets": 1}),
        ([white(nucleus=90), white(), white(quality=0.49), white(quality=0.51)], {"implausible_nuclei": 2}),
        ([white(quality=None), {**white(), "nucleus": None}], {"implausible_nuclei": 1}),
    ],
)
def test_what_is_doubtful_is_counted(cells, expected):
    assert warnings_of(cells) == expected


def test_a_cell_is_as_good_as_the_worse_of_outline_and_nucleus():
    mask = np.ones((9, 9), np.uint8)
    objects = Objects(cells=[(Region(0, 0, mask, quality=0.91), Region(2, 2, mask[:4, :4], quality=0.8333))])
    objects.red_cells = [Region(20, 20, mask, quality=0.7), Region(20, 0, mask)]
    _, cells = to_labels(objects, (40, 40))
    assert [entry.get("quality") for entry in cells] == [0.833, 0.7, None]


def test_cells_of_less_quality_are_left_out_and_unknown_ones_stay():
    record = {"id": "a.png", "mask": "a", "size": [100, 100], "cells": []}
    for index, quality in enumerate((0.4, 0.9, None, "")):
        more = {} if quality == "" else {"quality": quality}
        record["cells"].append(
            {"kind": "wbc", "area": 9, "centroid": [50.0 + 10 * index, 50.0], "value": index, **more}
        )
    assert [c["value"] for c in choose_cells(record, None, "all", min_quality=0.5)] == [1, 2, 3]
    assert choose_cells(record, None, "central", min_quality=0.5) == []
    assert [c["value"] for c in choose_cells(record, None, "central")] == [0]


def test_crop_drops_cells_by_quality_and_keeps_it_in_their_records(cli, masks, tmp_path):
    records = [r for r in read_records(masks / "records.jsonl") if r.get("cells")][:4]
    for number, record in enumerate(records):
        record["path"] = str(masks / record["path"])
        record["mask"] = str(masks / record["mask"])
        for entry in record["cells"]:
            entry["quality"] = 0.2 + 0.2 * number
    found = write_records(tmp_path / "r.jsonl", records)
    done = cli("crop", found, "-o", tmp_path / "cells", "--min-quality", 0.5)
    assert done.code == 0, done.err
    assert [r["quality"] for r in done.records if "value" in r] == pytest.approx([0.6, 0.8])
    assert cli("crop", found, "-o", tmp_path / "cells", "--min-quality", 0.7).code == 2
    assert cli("crop", found, "-o", tmp_path / "other", "--min-quality", 1.5).code == 2
