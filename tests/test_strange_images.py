"""Images that hold nothing a method expects, and masks that do not fit: a record or a clear error."""

import json

import cv2
import numpy as np
import pytest

from wbctool.imaging.files import read_labels
from wbctool.segmentation import METHODS

CLASSICAL = [name for name in METHODS.names() if name != "sam"]


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange")
    rng = np.random.default_rng(0)
    images = {
        "one-pixel": np.full((1, 1, 3), 200, np.uint8),
        "row": np.full((1, 300, 3), 120, np.uint8),
        "column": np.full((300, 1, 3), 120, np.uint8),
        "black": np.zeros((70, 80, 3), np.uint8),
        "white": np.full((70, 80, 3), 255, np.uint8),
        "slide": np.clip(rng.normal(225, 3, (200, 210, 3)), 0, 255).astype(np.uint8),
        "nucleus": np.clip(rng.normal((70, 30, 120), 6, (200, 210, 3)), 0, 255).astype(np.uint8),
        "noise": rng.integers(0, 256, (90, 95, 3)).astype(np.uint8),
        "checks": np.kron(np.indices((40, 40)).sum(0) % 2, np.ones((5, 5))).astype(np.uint8)[..., None]
        * np.array([200, 120, 210], np.uint8),
        "two-colours": np.repeat([[[250, 240, 245]], [[90, 40, 130]]], 60, axis=0).repeat(100, axis=1).astype(np.uint8),
    }
    for name, image in images.items():
        cv2.imwrite(str(folder / f"{name}.png"), image[..., ::-1])
    return folder


@pytest.mark.parametrize("method", CLASSICAL)
@pytest.mark.filterwarnings("error")
def test_every_image_gives_a_record_whose_list_is_the_label_image(cli, strange, tmp_path, method):
    done = cli("segment", strange, "-o", tmp_path / "out", "--method", method, "--overlay", "--jobs", 1)
    assert done.code == 0, done.err
    assert len(done.records) == len(list(strange.iterdir()))
    for record in done.records:
        labels = read_labels(record["mask"], tuple(record["size"]))
        listed = {cell["value"] for cell in record["cells"]}
        nuclei = {cell["nucleus"]["value"] for cell in record["cells"] if "nucleus" in cell}
        assert set(np.unique(labels)) - {0} <= listed | nuclei
        for cell in record["cells"]:
            values = [cell["value"]] + ([cell["nucleus"]["value"]] if "nucleus" in cell else [])
            mask = np.isin(labels, values)
            assert cell["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            x, y, width, height = cell["bbox"]
            assert (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1) == (x, y, width, height)


def test_empty_fields_go_through_the_chain(cli, strange, tmp_path):
    cli("segment", strange, "-o", tmp_path / "masks", "--jobs", 1, "--coco", tmp_path / "coco.json")
    done = cli("crop", tmp_path / "masks", "-o", tmp_path / "cells", "--which", "all", "--kind", "any", "--jobs", 1)
    assert done.code == 0, done.err
    assert "have no such cell" in done.err
    assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == len(list(strange.iterdir()))


def test_names_in_folders_that_a_step_makes_for_itself_stay_apart(cli, drawn, tmp_path):
    images = sorted((drawn / "images").glob("*/*.jpg"))[:2]
    for folder, image in zip(("overlays", "_overlays"), images, strict=True):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "a.jpg").write_bytes(image.read_bytes())
    done = cli("segment", tmp_path / "in", "-o", tmp_path / "out", "--overlay", "--jobs", 1)
    assert done.code == 0, done.err
    assert len({record["mask"] for record in done.records}) == 2
    for record in done.records:
        labels = read_labels(record["mask"], tuple(record["size"]))
        assert {cell["value"] for cell in record["cells"]} <= set(np.unique(labels))
    assert len(list((tmp_path / "out" / "overlays").rglob("*.png"))) == 2


@pytest.mark.parametrize("bbox", [[10, 10, 0, 0], [10, 10, -20, -20], [-1000, -1000, 5, 5], [0, 0, 1e9, 1e9]])
def test_a_box_that_lies_nowhere_is_an_error_record(cli, masks, tmp_path, bbox):
    record = json.loads((masks / "records.jsonl").read_text().splitlines()[0])
    for key in ("path", "mask"):
        record[key] = str((masks / record[key]).resolve())
    record["cells"] = [{**cell, "bbox": bbox} for cell in record["cells"]]
    (tmp_path / "in.jsonl").write_text(json.dumps(record) + "\n")
    done = cli("crop", tmp_path / "in.jsonl", "-o", tmp_path / "out", "--method", "box", "--jobs", 1)
    assert done.code == 4
    assert "does not lie in the image" in done.records[0]["error"]


def test_a_mask_of_another_image_and_a_record_without_cells_are_named(cli, masks, tmp_path):
    lines = (masks / "records.jsonl").read_text().splitlines()
    first, second, third = (json.loads(line) for line in lines[:3])
    for record in (first, second, third):
        for key in ("path", "mask"):
            record[key] = str((masks / record[key]).resolve())
    cv2.imwrite(str(tmp_path / "small.png"), np.ones((5, 7), np.uint8))
    first["mask"] = str(tmp_path / "small.png")
    del second["cells"]
    third["mask"] = str(tmp_path / "gone.png")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (first, second, third)))
    done = cli("crop", tmp_path / "in.jsonl", "-o", tmp_path / "out", "--jobs", 1)
    assert done.code == 4
    errors = [record["error"] for record in done.records]
    assert "the mask is 7×5, its image 160×160" in errors[0]
    assert "cells" in errors[1]
    assert "gone.png" in errors[2]
    assert all("Traceback" not in text for text in (done.err, *errors))


@pytest.mark.slow
def test_a_slide_of_twenty_thousand_pixels_a_side(cli, tmp_path):
    cv2.imwrite(str(tmp_path / "slide.png"), np.full((20_000, 20_000), 230, np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    done = cli("segment", tmp_path / "slide.png", "-o", tmp_path / "out", "--jobs", 1)
    (record,) = done.records
    assert done.code in (0, 4)
    assert record.get("cells") == [] or "memory" in record["error"] or "cut it into tiles" in record["error"]
