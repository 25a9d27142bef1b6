"""Overlays and COCO files."""

import json
import os

import numpy as np
import pytest
from pycocotools.coco import COCO

from wbctool.drawing import draw_field
from wbctool.imaging.files import read_image, read_labels
from wbctool.imaging.label_image import Objects, Region
from wbctool.segmentation.overlay import COLOURS, RIDGE, overlay


@pytest.fixture(scope="module")
def annotated(drawn, tmp_path_factory):
    from conftest import in_shell

    out = tmp_path_factory.mktemp("annotated")
    done = in_shell(
        "segment", drawn / "images", "-o", out / "masks", "--coco", out / "coco.json", "--overlay", "--jobs", 1
    )
    assert done.code == 0, done.err
    return out, done.records


def test_the_coco_file_loads_and_gives_every_mask_back(annotated, capsys):
    out, records = annotated
    coco = COCO(str(out / "coco.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["wbc", "nucleus", "rbc", "platelet"]
    assert [image["file_name"] for image in coco.dataset["images"]] == [record["id"] for record in records]
    for number, record in enumerate(records, start=1):
        labels = read_labels(record["mask"])
        notes = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        wanted = [[c["value"], c.get("nucleus", {}).get("value", c["value"])] for c in record["cells"]]
        wanted += [[c["nucleus"]["value"]] for c in record["cells"] if "nucleus" in c]
        drawn = {(*note["bbox"], note["category_id"]): (coco.annToMask(note), note) for note in notes}
        for values in wanted:
            mask = np.isin(labels, values)
            if not mask.any():
                continue
            close = [d for d, _ in drawn.values() if 2 * (d & mask).sum() >= 0.985 * (d.sum() + mask.sum())]
            assert close, (record["id"], values)
        for mask, note in drawn.values():
            assert abs(int(mask.sum()) - note["area"]) <= 0.02 * note["area"] + 8
            assert note["iscrowd"] == 0


def test_polygons_run_along_the_edges_of_the_pixels():
    from wbctool.segmentation.coco import _polygons

    mask = np.zeros((6, 7), np.uint8)
    mask[2:4, 1:5] = 1
    (polygon,) = _polygons(mask, 10, 20)
    points = sorted(zip(polygon[::2], polygon[1::2], strict=True))
    assert points == [(11.0, 22.0), (11.0, 24.0), (15.0, 22.0), (15.0, 24.0)]


def test_rerun_gives_the_same_coco_file(annotated, drawn, cli, tmp_path):
    out, _ = annotated
    words = ("segment", drawn / "images", "-o", out / "masks", "--overlay", "--coco", tmp_path / "again.json")
    assert cli(*words).code == 0
    assert (tmp_path / "again.json").read_bytes() == (out / "coco.json").read_bytes()
    assert json.loads((out / "coco.json").read_text())["annotations"]


def test_the_coco_file_never_replaces_something_else(drawn, cli, tmp_path):
    image = next((drawn / "images").glob("*/*.jpg"))
    before = image.read_bytes()
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "file").write_text("x")
    for path in (image, tmp_path / "folder.json", tmp_path / "pipe.json", tmp_path / "file" / "a.json",
                 tmp_path / "out" / "run.json", tmp_path / "out" / "records.jsonl", "-"):  # fmt: skip
        done = cli("segment", image, "-o", tmp_path / "out", "--coco", path)
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), path
        assert "--coco" in done.err
    assert image.read_bytes() == before
    assert not (tmp_path / "out").exists()
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    assert cli("segment", image, "-o", tmp_path / "out", "--coco", tmp_path / "link.json").code == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["images"]


def test_each_shard_has_a_coco_file_of_its_own(drawn, cli, tmp_path):
    folder = drawn / "images" / "monocyte"
    for shard in ("1/2", "2/2"):
        assert cli("segment", folder, "-o", tmp_path / "o", "--shard", shard, "--coco", tmp_path / "c.json").code == 0
    names = [
        image["file_name"]
        for part in ("c-1-of-2.json", "c-2-of-2.json")
        for image in json.loads((tmp_path / part).read_text())["images"]
    ]
    assert sorted(names) == sorted(path.name for path in folder.iterdir())


def test_cells_with_holes_are_given_as_run_lengths(tmp_path):
    from pycocotools import mask as coder

    from wbctool.segmentation.coco import _is_solid, _runs

    ring = np.zeros((6, 7), np.uint8)
    ring[1:6, 0:5] = 1
    assert _is_solid(ring)
    ring[3, 2] = 0
    assert not _is_solid(ring)
    for x, y in ((0, 0), (3, 4)):
        runs = _runs(ring, x, y, (12, 11))
        back = coder.decode(coder.frPyObjects(runs, 12, 11))
        whole = np.zeros((12, 11), np.uint8)
        whole[y : y + 6, x : x + 7] = ring
        assert np.array_equal(back, whole)


def test_overlays_show_outlines_in_the_colour_of_their_kind(annotated):
    out, records = annotated
    colours = set()
    for record in records:
        path = out / "masks" / "overlays" / record["id"].replace(".jpg", ".png")
        image, drawn = read_image(record["path"]), read_image(path)
        assert drawn.shape == image.shape
        changed = {tuple(colour) for colour in drawn[(drawn != image).any(axis=2)].tolist()}
        assert changed <= set(COLOURS.values()) | {RIDGE}
        colours |= changed
    assert set(COLOURS.values()) <= colours


def test_ridges_are_red_and_the_image_itself_is_left_alone():
    image, _ = draw_field("lymphocyte", np.random.default_rng(0))
    before = image.copy()
    ridges = np.zeros(image.shape[:2], np.uint8)
    ridges[50:60, 70] = 1
    square = np.zeros(image.shape[:2], np.uint8)
    square[10:20, 10:20] = 1
    drawn = overlay(image, Objects(red_cells=[Region.from_mask(square)], ridges=ridges))
    assert np.array_equal(image, before)
    assert (drawn[50:60, 70] == RIDGE).all()
    assert (drawn[10, 10:20] == COLOURS["rbc"]).all()
    assert np.array_equal(drawn[100:], image[100:])
