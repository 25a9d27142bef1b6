"""The shortest path around a nucleus, and regions in their windows."""

import itertools

import cv2
import numpy as np
import pytest

from wbctool.imaging.label_image import Region
from wbctool.segmentation import shortest_path
from wbctool.segmentation.shortest_path import RedCellColours, cell_outline


def closed_cost(costs, path):
    steps = np.diff(np.append(path, path[0]))
    if np.abs(steps).max() > shortest_path.MAX_BEND:
        return np.inf
    return costs[np.arange(len(path)), path].sum() + shortest_path.BEND * (steps.astype(float) ** 2).sum()


def test_the_path_is_the_cheapest_closed_one(monkeypatch):
    monkeypatch.setattr(shortest_path, "RAYS", 8)
    monkeypatch.setattr(shortest_path, "STEPS", 4)
    rng = np.random.default_rng(0)
    costs = rng.normal(size=(5, 8, 4)).astype(np.float32)
    paths = shortest_path._shortest(costs)
    for one, path in zip(costs, paths, strict=True):
        best = min(closed_cost(one, np.array(other)) for other in itertools.product(range(4), repeat=8))
        # computed over a turn and a half, the path is closed to within one bend
        assert closed_cost(one, path) <= best + 4 * shortest_path.BEND


def cell_in_field(radius=30, nucleus_radius=17, shape=(160, 170), middle=(80, 76)):
    """Absorbance of a round cell of pale cytoplasm that two red cells touch."""
    density = np.zeros((*shape, 3), np.float32)
    truth = cv2.circle(np.zeros(shape, np.uint8), middle, radius, 1, -1)
    red = np.zeros(shape, np.uint8)
    for x, y in ((middle[0] + radius + 19, middle[1]), (middle[0], middle[1] - radius - 19), (30, 140), (140, 140)):
        cv2.circle(red, (x, y), 20, 1, -1)
    density[red > 0] = (0.1, 0.35, 0.45)
    density[truth > 0] = (0.3, 0.3, 0.12)
    nucleus = cv2.circle(np.zeros(shape, np.uint8), (middle[0] + 5, middle[1] + 4), nucleus_radius, 1, -1)
    density[nucleus > 0] = (1.6, 1.8, 0.7)
    density += np.random.default_rng(1).normal(0, 0.02, density.shape).astype(np.float32)
    return cv2.GaussianBlur(density, (0, 0), 1.0), truth, nucleus, red


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("with_red_cells", [True, False])
def test_the_outline_is_the_cell_and_not_the_red_cells_that_touch_it(with_red_cells):
    density, truth, nucleus, red = cell_in_field()
    colours = RedCellColours.of(density[(red > 0) & (truth == 0)]) if with_red_cells else None
    nearest = np.ones(truth.shape, np.int32)
    outline = cell_outline(density, Region.from_mask(nucleus), nearest, 1, colours)
    drawn = Region.from_outline(outline, truth.shape).to_mask(truth.shape)
    assert outline.shape == (shortest_path.RAYS, 2)
    assert dice(drawn, truth) > (0.96 if with_red_cells else 0.7)


def test_pixels_nearer_to_another_nucleus_are_not_of_the_cell():
    density, truth, nucleus, red = cell_in_field()
    nearest = np.ones(truth.shape, np.int32)
    nearest[:, :70] = 2
    colours = RedCellColours.of(density[(red > 0) & (truth == 0)])
    outline = cell_outline(density, Region.from_mask(nucleus), nearest, 1, colours)
    assert outline[:, 0].min() > 64


def test_a_cell_at_the_images_edge_is_cut_by_it():
    density, truth, nucleus, _ = cell_in_field(middle=(12, 76))
    outline = cell_outline(density, Region.from_mask(nucleus), np.ones(truth.shape, np.int32), 1, None)
    region = Region.from_outline(outline, truth.shape)
    assert region.x == 0
    assert region.to_mask(truth.shape).shape == truth.shape


def test_regions_in_windows():
    mask = np.zeros((40, 50), np.uint8)
    mask[5:12, 30:44] = 1
    region = Region.from_mask(mask)
    assert (region.x, region.y, region.area) == (30, 5, 98)
    assert np.array_equal(region.to_mask(mask.shape), mask)
    square = Region.from_outline(np.array([[2, 3], [9.0, 3], [9, 8], [2, 8]], np.float32), (10, 10))
    assert square.to_mask((10, 10)).sum() == 8 * 6
    outside = Region.from_outline(np.array([[-5, -5], [100, -5], [100, 100], [-5, 100]], np.float32), (10, 12))
    assert outside.to_mask((10, 12)).all()


@pytest.mark.parametrize("scale", [0.5, 0.6, 0.75])
def test_a_region_is_scaled_with_its_image(scale):
    shape = (90, 120)
    for middle, radius in (((60, 40), 25), ((4, 40), 25), ((115, 88), 20)):
        large = cv2.circle(np.zeros(shape, np.uint8), middle, radius, 1, -1)
        small = (cv2.resize(large * 255, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) > 127).astype(np.uint8)
        scaled = Region.from_mask(small).scaled(scale, shape).to_mask(shape)
        assert dice(scaled, large) > 0.95
