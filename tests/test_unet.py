"""The U-Net method: its maps, how they are split into cells, and what it gives on drawn smears."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import read_records

from wbctool.drawing.smear import draw_field
from wbctool.imaging.label_image import Region
from wbctool.segmentation import find_objects, unet
from wbctool.segmentation.borders import Borders, enlarged, expected_dice
from wbctool.segmentation.depth import split_by_depth, without_small
from wbctool.segmentation.maps import PLATELET, RED, WHITE, Maps, load, maps_of
from wbctool.segmentation.unet import _of_one_kind


def disks(shape, *circles):
    """A mask of disks (x, y, radius) and the depth in the nearest one."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = np.stack([1 - np.hypot(x - cx, y - cy) / radius for cx, cy, radius in circles]).max(axis=0)
    return (inside > 0).astype(np.uint8), np.clip(inside, 0, 1).astype(np.float32)


def test_touching_cells_are_split_at_their_valley():
    mask, depth = disks((60, 100), (30, 30, 20), (66, 30, 20))
    labels = split_by_depth(mask, depth, 0.1)
    assert labels.max() == 2
    assert ((labels > 0) == (mask > 0)).all()
    areas = np.bincount(labels.ravel())[1:]
    assert abs(int(areas[0]) - int(areas[1])) < 0.05 * areas.sum()
    assert len({labels[30, 30], labels[30, 66]}) == 2


def test_a_piece_without_a_peak_is_one_cell_and_small_ones_are_dropped():
    mask, depth = disks((60, 100), (20, 30, 15), (60, 30, 3))
    assert split_by_depth(mask, 0.3 * depth, 0.1).max() == 2
    assert without_small(split_by_depth(mask, depth, 0.1), 100, 100).max() == 1
    assert split_by_depth(np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.float32), 0.1).max() == 0
    full = np.ones((20, 20), np.uint8)
    assert (split_by_depth(full, np.ones((20, 20), np.float32), 0.1) == 1).all()


def test_a_cell_that_the_edge_cuts_may_be_smaller():
    labels = np.zeros((20, 20), np.int32)
    labels[0, :8], labels[10:12, 5:9], labels[15:, 15:] = 1, 2, 3  # 8, 8 and 25 pixels
    kept = without_small(labels, 10, 5)
    assert (kept[0, :8] == 1).all()
    assert not kept[10:12].any()
    assert (kept[15:, 15:] == 2).all()


def test_a_shallow_valley_splits_no_cell():
    mask, depth = disks((60, 100), (40, 30, 20), (58, 30, 20))  # the valley lies at 0.55
    assert split_by_depth(mask, depth, 0.1).max() == 2
    assert split_by_depth(mask, depth, 0.5).max() == 1


def test_maps_are_interpolated_where_the_image_has_its_pixels():
    maps = Maps(np.zeros((5, 30, 50), np.float32), np.zeros((30, 50), np.float32), (0.25, 0.5))
    ramp = np.tile(np.arange(50, dtype=np.float32), (30, 1))
    large = enlarged(maps, ramp, (40, 20), (8, 60))
    assert large.shape == (8, 60)
    assert np.allclose(large[0], (np.arange(40, 100) + 0.5) * 0.25 - 0.5, atol=0.02)


def test_the_expected_dice_is_that_of_drawn_masks():
    rng = np.random.default_rng(0)
    chance = cv2.GaussianBlur(rng.random((40, 40)).astype(np.float32), (0, 0), 3)
    chance = (chance - chance.min()) / np.ptp(chance)
    mask = chance > 0.5
    dice = []
    for _ in range(300):
        truth = rng.random(chance.shape) < chance
        dice.append(2 * (truth & mask).sum() / (truth.sum() + mask.sum()))
    assert expected_dice(mask, chance) == pytest.approx(np.mean(dice), abs=0.01)


def test_an_image_larger_than_a_tile_gives_the_maps_of_its_parts():
    image, _ = draw_field("neutrophil", np.random.default_rng(3), size=512)
    large = cv2.copyMakeBorder(image, 0, 512, 0, 512, cv2.BORDER_REFLECT_101)
    whole = maps_of(large, 1.0, load())
    alone = maps_of(image, 1.0, load())
    middle = (slice(None), slice(20, 200), slice(20, 200))
    assert np.abs(whole.probabilities[middle] - alone.probabilities[middle]).mean() < 0.01


def test_a_small_cell_that_is_partly_platelet_is_one_cell():
    probabilities = np.zeros((5, 40, 40), np.float32)
    probabilities[0] = 1
    probabilities[:, 10:20, 10:20] = np.array([0.05, 0, 0.05, 0.3, 0.6])[:, None, None]  # platelet, rather
    probabilities[:, 10:20, 10:14] = np.array([0.05, 0, 0.05, 0.7, 0.2])[:, None, None]  # 4 of 10 columns are nucleus
    probabilities[:, 30:36, 30:36] = np.array([0.05, 0, 0.05, 0.1, 0.8])[:, None, None]
    maps = _of_one_kind(Maps(probabilities, np.zeros((40, 40), np.float32), (1.0, 1.0)), unit=200)
    assert (maps.likely[10:20, 10:20] == WHITE).all()
    assert (maps.margin(WHITE)[10:20, 10:20] > 0).all()
    assert (maps.nucleus[10:20, 10:20] > 0).all()
    assert (maps.likely[30:36, 30:36] == PLATELET).all()
    assert np.allclose(maps.probabilities.sum(axis=0), 1)


def test_touching_red_cells_are_not_whole():
    probabilities = np.zeros((5, 40, 60), np.float32)
    labels = np.zeros((40, 60), np.int32)
    for number, (x, y) in enumerate([(12, 12), (28, 12), (48, 30)], start=1):  # the first two touch
        cv2.circle(labels, (x, y), 8, number, -1)
    probabilities[RED], probabilities[0] = labels > 0, labels == 0
    maps = Maps(probabilities, np.zeros((40, 60), np.float32), (1.0, 1.0))
    regions = Borders(maps, RED, labels, labels > 0, (40, 60)).regions()
    assert [region.overlapped for region in regions] == [True, True, False]


def test_drawn_cells_agree_with_their_truth():
    dice = []
    for number, name in enumerate(["neutrophil", "lymphocyte", "monocyte", "band", "eosinophil"] * 2):
        image, truth = draw_field(name, np.random.default_rng(number))
        objects = find_objects(image, "unet")
        assert len(objects.cells) == len(truth.cells) == 1
        for drawn, found in zip(truth.cells[0], objects.cells[0], strict=True):
            a, b = drawn.to_mask(image.shape[:2]), found.to_mask(image.shape[:2])
            dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        for region in (*objects.cells[0], *objects.red_cells):
            assert isinstance(region, Region)
            assert 0 <= region.quality <= 1
    assert np.mean(dice) > 0.93


def test_another_network_is_read_and_a_file_that_is_none_refused(cli, drawn, tmp_path):
    folder = drawn / "images" / "band"
    shutil.copy(Path(unet.__file__).parent / "unet.onnx", tmp_path / "copy.onnx")
    for out, more in (("own", ()), ("copy", ("--unet-network", tmp_path / "copy.onnx"))):
        assert cli("segment", folder, "-o", tmp_path / out, *more).code == 0
    masks = {path.name: path.read_bytes() for path in (tmp_path / "own").rglob("*.png")}
    assert masks
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").rglob("*.png")} == masks
    for name in ("gone.onnx", "text.onnx"):
        if name == "text.onnx":
            (tmp_path / name).write_text("no network")
        done = cli("segment", folder, "-o", tmp_path / "m", "--method", "unet", "--unet-network", tmp_path / name)
        assert done.code == 3
        assert name in done.err
    assert cli("segment", folder, "-o", tmp_path / "m", "--method", "stain", "--unet-network", "x.onnx").code == 2
    assert cli("segment", folder, "-o", tmp_path / "m", "--unet-network", "").code == 2


def test_masks_made_anew_keep_nothing_of_the_first(cli, drawn, tmp_path):
    folder = drawn / "images" / "band"
    cli("segment", folder, "-o", tmp_path / "first", "--method", "purple-index", "--theta", "0.2")
    assert read_records(tmp_path / "first" / "records.jsonl")[0]["constants"] == {"theta": 0.2}
    cli("segment", tmp_path / "first", "-o", tmp_path / "second")
    record = read_records(tmp_path / "second" / "records.jsonl")[0]
    assert record["method"] == "unet"
    assert "constants" not in record


@pytest.mark.data
def test_white_cells_are_found_in_fields_of_any_size(data):
    from wbctool.imaging.files import read_image

    paths = sorted((data / "txl-416" / "images").glob("*.jpg"))[:9]
    counts = [len(find_objects(read_image(path)).cells) for path in paths]
    rows = [np.hstack([read_image(path) for path in paths[start : start + 3]]) for start in (0, 3, 6)]
    assert abs(len(find_objects(np.vstack(rows)).cells) - sum(counts)) <= 1


@pytest.mark.data
def test_cells_of_an_enlarged_field_keep_their_outlines(data):
    from wbctool.imaging.files import read_image

    for path in sorted((data / "bccd" / "JPEGImages").glob("*.jpg"))[::20]:
        image = read_image(path)
        large = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
        masks = [white_cells(image), cv2.resize(white_cells(large), image.shape[1::-1], interpolation=cv2.INTER_AREA)]
        assert 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()) > 0.96


def white_cells(image):
    """The white cells of an image as one mask."""
    return sum(whole.to_mask(image.shape[:2]) for whole, _ in find_objects(image).cells).astype(np.uint8)
