"""Masks against drawn truth and against experts."""

import cv2
import numpy as np
import pytest

from wbctool.drawing import MORPHOLOGIES, draw_field
from wbctool.errors import UsageProblem
from wbctool.imaging.files import read_image
from wbctool.imaging.label_image import Objects, Region, to_labels
from wbctool.segmentation import METHODS, find_objects
from wbctool.segmentation.regions import components, fill_holes, gather_lobes
from wbctool.segmentation.thresholds import otsu


def dice(a, b):
    total = a.sum(dtype=int) + b.sum(dtype=int)
    return 2 * (a & b).sum(dtype=int) / total if total else 1.0


def central(objects, shape):
    middle = np.array(shape) / 2
    cells = [(whole.to_mask(shape), nucleus.to_mask(shape)) for whole, nucleus in objects.cells]
    return min(cells, key=lambda c: np.hypot(*(np.argwhere(c[0]).mean(axis=0) - middle)))


@pytest.mark.parametrize("name", MORPHOLOGIES)
def test_drawn_white_cells_are_found_with_their_borders(name):
    wholes, nuclei = [], []
    for seed in range(6):
        image, truth = draw_field(name, np.random.default_rng(seed))
        objects = find_objects(image, "stain")
        assert len(objects.cells) >= 1
        whole, nucleus = central(objects, image.shape[:2])
        wholes.append(dice(whole, truth.cells[0][0].to_mask(whole.shape)))
        nuclei.append(dice(nucleus, truth.cells[0][1].to_mask(whole.shape)))
    assert np.median(wholes) >= 0.9
    if name != "basophil":  # its granules lie over the nucleus and are as dark
        assert np.median(nuclei) >= (0.7 if name == "eosinophil" else 0.85)


def test_a_field_of_platelets_shows_platelets_and_no_white_cell():
    for seed in range(6):
        image, truth = draw_field("platelet", np.random.default_rng(seed))
        objects = find_objects(image, "stain")
        assert objects.cells == []
        assert len(objects.platelets) >= 1
        overlaps = [
            max(dice(mask.to_mask((192, 192)), other.to_mask((192, 192))) for other in objects.platelets)
            for mask in truth.platelets
        ]
        assert max(overlaps) > 0.5


def test_red_cells_are_found():
    correct = []
    for seed in range(6):
        image, truth = draw_field("lymphocyte", np.random.default_rng(seed))
        objects = find_objects(image, "stain").red_cells
        correct += [
            max((dice(mask.to_mask((192, 192)), other.to_mask((192, 192))) for other in objects), default=0) > 0.8
            for mask in truth.red_cells
        ]
    assert np.mean(correct) > 0.8


@pytest.mark.data
@pytest.mark.parametrize(("number", "nucleus_at_least", "whole_at_least"), [(1, 0.95, 0.96), (2, 0.97, 0.95)])
def test_agreement_with_experts(data, number, nucleus_at_least, whole_at_least):
    nuclei, wholes = [], []
    for path in sorted((data / "wbc-masks" / f"dataset{number}" / "images").iterdir()):
        image = read_image(path)
        truth = cv2.imread(str(path.parents[1] / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        objects = find_objects(image, "stain")
        whole, nucleus = central(objects, image.shape[:2]) if objects.cells else (np.zeros_like(truth),) * 2
        nuclei.append(dice(nucleus, (truth > 200).astype(np.uint8)))
        wholes.append(dice(whole, (truth > 64).astype(np.uint8)))
    assert np.mean(nuclei) >= nucleus_at_least
    assert np.mean(wholes) >= whole_at_least


CLASSICAL = [name for name in METHODS.names() if name != "sam"]


@pytest.mark.parametrize("method", CLASSICAL)
@pytest.mark.parametrize(
    "image",
    [
        np.full((1, 1, 3), 200, np.uint8),
        np.full((3, 400, 3), 90, np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.full((64, 64, 3), (80, 40, 130), np.uint8),
        np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8),
    ],
    ids=["1x1", "strip", "black", "all nucleus", "noise"],
)
def test_images_without_cells_give_a_label_image_too(method, image):
    labels, cells = to_labels(find_objects(image, method), image.shape[:2])
    assert labels.shape == image.shape[:2]
    assert set(np.unique(labels)) - {0} <= {c["value"] for c in cells} | {
        c["nucleus"]["value"] for c in cells if "nucleus" in c
    }


def test_an_unknown_method_is_a_usage_error():
    with pytest.raises(UsageProblem, match=r"--method magic: .*choose from .*stain"):
        find_objects(np.zeros((2, 2, 3), np.uint8), "magic")


def square(y, x, side, shape=(40, 50)):
    mask = np.zeros(shape, np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def region(y, x, side):
    return Region.from_mask(square(y, x, side))


def test_the_label_image_and_its_list_agree():
    objects = Objects(
        cells=[(region(10, 10, 12), region(12, 12, 5))],
        platelets=[region(0, 30, 6)],
        red_cells=[region(18, 18, 10), region(11, 11, 3), region(30, 2, 4)],
    )
    labels, cells = to_labels(objects, (40, 50))
    assert labels.dtype == np.uint8
    assert [c["value"] for c in cells] == [1, 3, 4, 6]  # the second red cell is wholly covered
    white, platelet, red, lone = cells
    assert (red["whole"], lone["whole"]) == (False, True)
    assert white["bbox"] == [10, 10, 12, 12]
    assert white["area"] == 144 == (labels == 1).sum() + (labels == 2).sum()
    assert white["nucleus"] == {"value": 2, "area": 25}
    assert white["centroid"] == [15.5, 15.5]
    assert (white["edge"], platelet["edge"]) == (False, True)
    assert red["area"] == 100 - 16 == (labels == 4).sum()


def test_many_objects_take_16_bits():
    red = [region(y, x, 1) for y in range(0, 40, 2) for x in range(0, 50, 2)]
    labels, cells = to_labels(Objects(red_cells=red), (40, 50))
    assert labels.dtype == np.uint16
    assert len(cells) == 500 == labels.max()


def test_lobes_near_each_other_are_one_nucleus_and_far_ones_two():
    near = square(5, 5, 10) | square(5, 17, 10)
    far = square(5, 5, 10) | square(5, 38, 10)
    assert len(components(near)) == 2
    assert len(gather_lobes(near, 4)) == 1
    assert len(gather_lobes(far, 4)) == 2
    assert gather_lobes(square(5, 5, 2), 5) == []


def test_regions():
    ring = square(5, 5, 10) - square(7, 7, 4)
    assert np.array_equal(fill_holes(ring), square(5, 5, 10))
    assert np.array_equal(fill_holes(np.ones((4, 4), np.uint8)), np.ones((4, 4), np.uint8))
    assert otsu(np.full((5, 5), 3.0)).sum() == 0
    assert np.array_equal(otsu(square(5, 5, 10).astype(np.float32) * 7 - 2), square(5, 5, 10))
