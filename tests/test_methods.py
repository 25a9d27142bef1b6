"""The published methods against plain references, and what all methods share."""

import cv2
import numpy as np
import pytest
from skimage.color import rgb2hed, rgb2hsv, rgb2lab
from skimage.filters import threshold_otsu

from wbctool.drawing import draw_field
from wbctool.errors import UsageProblem
from wbctool.imaging.colour import haematoxylin
from wbctool.segmentation import METHODS, find_objects
from wbctool.segmentation.method import Refinement, Splitting
from wbctool.segmentation.regions import disk
from wbctool.segmentation.thresholds import otsu_level, refine, split_touching

SPLITTING = {"split_peak_share": 0.5, "split_peak_area": 127.0, "split_marker_radius": 2, "split_cut": 0.4}
BARE = {"radius": 0, "iterations": 0, "min_area": 1.0, "smooth": 0.0}


@pytest.fixture(scope="module")
def field():
    return draw_field("neutrophil", np.random.default_rng(3))[0]


def mask_of(objects, shape):
    mask = np.zeros(shape, bool)
    for whole, nucleus in objects.cells:
        assert whole is nucleus  # these methods find nuclei only
        mask |= whole.to_mask(shape) > 0
    return mask


def configure(method, values):
    return METHODS.get(method, "--method").configured(values)


def settings(method, values=None):
    return METHODS.get(method).settings(configure(method, values or {}))


def constants(method, values=None):
    return METHODS.get(method).constants(configure(method, values or {}))


def unrefined(image, method, **parameters):
    return mask_of(find_objects(image, method, {**BARE, **parameters}), image.shape[:2])


def same(a, b, tolerance=0.002):
    return (a != b).mean() <= tolerance


def test_purple_index(field):
    colour = field / 255.0
    index = (colour[..., 0] + colour[..., 2]) / 2 - colour[..., 1]
    assert same(unrefined(field, "purple-index", theta=0.203), index >= 0.203, 0)
    assert same(unrefined(field, "purple-index"), index > threshold_otsu(index))


def test_rgb(field):
    red, green, blue = np.moveaxis(field / 255.0, -1, 0)
    assert np.array_equal(unrefined(field, "rgb", as_published=True), (red > 0.5) & (green > 0.3) & (blue > 0.4))
    assert np.array_equal(unrefined(field, "rgb"), (red <= 0.5) & (green <= 0.3) & (blue > green))
    assert np.array_equal(
        unrefined(field, "rgb", rgb_thresholds=(0.6, 0.4, 0.4)), (red <= 0.6) & (green <= 0.4) & (blue > green)
    )


def test_hsv(field):
    hue, saturation, _ = np.moveaxis(rgb2hsv(field), -1, 0)
    assert same(unrefined(field, "hsv"), (np.abs(hue * 360 - 270) <= 15) & (saturation > 0.2))
    assert same(
        unrefined(field, "hsv", hue=350.0, hue_width=40.0),
        ((hue * 360 >= 310) | (hue * 360 <= 30)) & (saturation > 0.2),
    )


def test_lab(field):
    _, a, b = np.moveaxis(rgb2lab(field), -1, 0)
    assert same(unrefined(field, "lab", as_published=True), (a < 0) & (b > 0))
    assert same(unrefined(field, "lab"), a > threshold_otsu(a))


def test_haematoxylin_is_that_of_scikit_image(field):
    assert np.abs(haematoxylin(field) - rgb2hed(field)[..., 0]).max() < 1e-5
    density = rgb2hed(field)[..., 0]
    assert same(unrefined(field, "hed"), density > threshold_otsu(density), 0.01)


def test_grey_otsu_takes_the_dark_side_and_the_bright_one_as_published(field):
    shape = field.shape[:2]
    dark = mask_of(find_objects(field, "watershed"), shape)
    bright = mask_of(find_objects(field, "watershed", {"as_published": True}), shape)
    grey = cv2.cvtColor(field, cv2.COLOR_RGB2GRAY)
    assert grey[dark].mean() < grey[bright].mean()
    assert not (dark & bright).any()


def test_refinement_is_erosion_and_dilation_each_twice():
    mask = np.random.default_rng(0).integers(0, 2, (60, 60)).astype(np.uint8)
    mask[10:40, 15:50] = 1
    plain = mask
    for operation in (cv2.erode, cv2.erode, cv2.dilate, cv2.dilate):
        plain = operation(plain, disk(3))
    assert np.array_equal(refine(mask, Refinement(smooth=0.0)), plain)


def two_disks():
    mask = np.zeros((90, 150), np.uint8)
    cv2.circle(mask, (50, 45), 28, 1, -1)
    cv2.circle(mask, (103, 45), 28, 1, -1)
    return mask


def test_touching_disks_are_split_along_one_ridge():
    mask = two_disks()
    parts, ridges = split_touching(mask, Splitting())
    assert len(parts) == 2
    assert ridges.any()
    drawn = parts[0].to_mask(mask.shape) + parts[1].to_mask(mask.shape) + ridges
    assert np.array_equal(drawn, mask)
    columns = np.nonzero(ridges)[1]
    assert abs(columns.mean() - 76.5) <= 1
    assert abs(parts[0].area - parts[1].area) <= 0.05 * parts[0].area
    assert split_touching(np.zeros((9, 9), np.uint8), Splitting())[0] == []


def test_an_object_too_small_for_a_marker_stays_whole():
    mask = two_disks()
    mask[2:9, 2:9] = 1
    parts, _ = split_touching(mask, Splitting())
    assert sorted(part.area for part in parts)[0] == 49


def test_splitting_goes_with_every_method(field):
    parameters = {"split_touching": True, "split_cut": 0.5}
    for method in ("cyan-otsu", "purple-index", "watershed", "stain"):
        assert settings(method, parameters)["split_cut"] == 0.5
        assert settings(method, parameters)["split_peak_share"] == 0.5
        assert find_objects(field, method, parameters).ridges is not None


@pytest.mark.parametrize(
    ("method", "parameters", "words"),
    [
        ("stain", {"theta": 0.2}, ["--theta", "is not for --method stain"]),
        ("hsv", {"as_published": True}, ["--as-published", "is not for --method hsv"]),
        ("lab", {"split_cut": 0.5}, ["--split-cut", "needs --split-touching"]),
        ("lab", {"split_touching": True, "split_cut": 1.5}, ["--split-cut 1.5", "from 0 to 1"]),
        ("magic", {}, ["--method magic", "choose from cyan-otsu, hed"]),
        ("purple-index", {"theta": float("nan")}, ["--theta nan", "from -1 to 1"]),
        ("hsv", {"hue": float("inf")}, ["--hue inf", "from 0 to 360"]),
        ("hsv", {"hue_width": -4.0}, ["--hue-width -4.0", "from 0 to 180"]),
        ("lab", {"radius": 100}, ["--radius 100", "from 0 to 99"]),
        ("rgb", {"rgb_thresholds": (0.5, float("nan"), 0.4)}, ["--rgb-thresholds"]),
        ("sam", {"sam_model": "vit_x"}, ["--sam-model vit_x", "choose from vit_b, vit_l, vit_h"]),
    ],
)
def test_a_parameter_that_a_method_does_not_take_is_refused(method, parameters, words):
    with pytest.raises(UsageProblem) as refusal:
        configure(method, parameters)
    assert all(word in str(refusal.value) for word in words)


def test_settings_hold_every_parameter_and_constants_those_that_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rgb = {"radius": 2, "as_published": True, "rgb_thresholds": [0.6, 0.3, 0.4]}
    names = ["as_published", "rgb_thresholds", "radius", "iterations", "min_area", "smooth"]
    assert list(settings("rgb", rgb)) == names
    assert list(settings("rgb", {**rgb, "split_touching": True})) == [*names, *SPLITTING]
    assert constants("rgb", rgb) == rgb
    sam = {"sam_checkpoint": str(tmp_path / "weights.pth"), "sam_model": "vit_b", "sam_points": 32}
    assert settings("sam", {"sam_checkpoint": "weights.pth", "device": "cpu"}) == sam
    assert settings("stain") == constants("watershed") == {}
    assert constants("stain", {"split_touching": True}) == SPLITTING
    assert constants("watershed", {"split_cut": 0.3}) == {"split_cut": 0.3}
    assert settings("watershed").items() >= SPLITTING.items()


def test_a_run_repeats_the_constants_of_its_records():
    from wbctool.segmentation.step import step_of

    for values in ({"theta": 0.2, "radius": 2}, {"split_touching": True, "split_cut": 0.5}):
        step = step_of({"method": "purple-index", **constants("purple-index", values)})
        assert step.settings == {"method": "purple-index", **settings("purple-index", values), "overlay": False}


def test_otsu_of_a_histogram_is_that_of_scikit_image():
    rng = np.random.default_rng(0)
    levels = np.clip(np.concatenate([rng.normal(70, 9, 4000), rng.normal(160, 20, 6000)]), 0, 255).astype(int)
    counts = np.bincount(levels, minlength=256)
    clipped = np.clip(levels, *np.percentile(levels, [0.5, 99.5]))
    level, apart = otsu_level(counts)
    assert abs(level - threshold_otsu(clipped.astype(np.uint8))) <= 1
    lower, upper = clipped[clipped <= level], clipped[clipped > level]
    share = len(lower) * len(upper) / len(clipped) ** 2 * (lower.mean() - upper.mean()) ** 2 / clipped.var()
    assert apart == pytest.approx(share, abs=0.01)
    assert otsu_level(np.zeros(256)) == (0, 0.0)
    assert otsu_level(np.eye(256)[7])[1] == 0.0
