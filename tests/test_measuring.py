"""What cells measure: known shapes, known colours, the same however a cell lies."""

import itertools

import cv2
import numpy as np
import pytest
from skimage.color import rgb2hed

from wbctool.errors import ImageError
from wbctool.imaging.files import write_png
from wbctool.measuring.batches import Measuring
from wbctool.measuring.morphology import family_of, measure, names, vector_of
from wbctool.measuring.view import CellView, view_of


def disc(side, centre, radius):
    return cv2.circle(np.zeros((side, side), np.uint8), centre, radius, 1, -1).astype(bool)


@pytest.fixture(scope="module")
def view():
    """A cell with an ellipse for a nucleus, its pixels at random."""
    rng = np.random.default_rng(3)
    image = cv2.GaussianBlur(rng.integers(40, 230, (160, 160, 3), np.uint8), (0, 0), 1.2)
    image[:20] = 240
    nucleus = cv2.ellipse(np.zeros((160, 160), np.uint8), (76, 84), (32, 16), 30, 0, 360, 1, -1).astype(bool)
    return CellView(image, disc(160, (80, 82), 50), nucleus)


def test_a_disc_and_an_ellipse_measure_what_they_are(view):
    measures = measure(view)
    assert measures["cell.area"] == view.cell.sum()
    assert measures["cell.circularity"] == pytest.approx(1, abs=0.03)
    assert measures["cell.perimeter"] == pytest.approx(2 * np.pi * 50, rel=0.02)
    assert measures["cell.solidity"] > 0.98
    assert measures["cell.eccentricity"] < 0.05
    assert measures["cell.thickness"] == pytest.approx(1, abs=0.03)
    assert measures["cell.roughness"] < 0.01
    assert measures["nucleus.eccentricity"] == pytest.approx(np.sqrt(1 - (16 / 32) ** 2), abs=0.01)
    assert measures["nucleus.major_axis"] == pytest.approx(64, rel=0.03)
    assert measures["nucleus.minor_axis"] == pytest.approx(32, rel=0.04)
    assert measures["nucleus.lobes"] == measures["nucleus.pieces"] == 1
    assert measures["nucleus.holes"] == 0
    share = view.nucleus.sum() / view.cell.sum()
    assert measures["nucleus.share_of_cell"] == pytest.approx(share)
    assert measures["nucleus.to_cytoplasm"] == pytest.approx(share / (1 - share))
    assert measures["nucleus.off_centre"] == pytest.approx(np.hypot(4, 2) / 50, rel=0.05)


@pytest.mark.parametrize(
    ("centres", "bridge", "lobes", "pieces"),
    [
        ([(40, 80), (80, 60), (120, 80)], 6, 3, 1),
        ([(40, 80), (120, 80)], 6, 2, 1),
        ([(40, 80), (120, 80)], 0, 2, 2),
        ([(40, 80), (50, 80)], 6, 1, 1),
        ([(40, 50), (80, 90), (120, 50), (60, 120)], 6, 4, 1),
    ],
)
def test_lobes_and_pieces_of_a_nucleus_are_counted(centres, bridge, lobes, pieces):
    drawn = np.zeros((160, 160), np.uint8)
    for centre in centres:
        cv2.circle(drawn, centre, 17, 1, -1)
    for one, other in itertools.pairwise(centres):
        if bridge:
            cv2.line(drawn, one, other, 1, bridge)
    measures = measure(CellView(np.full((160, 160, 3), 150, np.uint8), disc(160, (80, 80), 75), drawn.astype(bool)))
    assert (measures["nucleus.lobes"], measures["nucleus.pieces"]) == (lobes, pieces)


def test_a_ring_has_a_hole():
    ring = disc(160, (80, 80), 40) & ~disc(160, (80, 80), 15)
    measures = measure(CellView(np.full((160, 160, 3), 150, np.uint8), disc(160, (80, 80), 60), ring))
    assert measures["nucleus.holes"] == 1


def test_a_cell_measures_the_same_however_it_lies(view):
    plain = measure(view)
    for turn in range(1, 4):
        turned = CellView(
            *[np.ascontiguousarray(np.rot90(part, turn)) for part in (view.image, view.cell, view.nucleus)]
        )
        for name, value in measure(turned).items():
            assert value == pytest.approx(plain[name], rel=0.02, abs=0.02), name
    mirrored = CellView(*[np.ascontiguousarray(part[:, ::-1]) for part in (view.image, view.cell, view.nucleus)])
    for name, value in measure(mirrored).items():
        assert value == pytest.approx(plain[name], rel=0.02, abs=0.02), name


def test_colours_are_those_of_the_pixels(view):
    measures = measure(view)
    pixels = view.image[view.nucleus]
    lab = cv2.cvtColor(view.image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    assert measures["colour.nucleus.lab.a.mean"] == pytest.approx(lab[view.nucleus][:, 1].mean(), rel=1e-4)
    assert measures["colour.nucleus.hed.eosin.sd"] == pytest.approx(rgb2hed(pixels[None])[0, :, 1].std(), rel=1e-4)
    assert measures["colour.nucleus.hsv.value.p90"] == pytest.approx(np.percentile(pixels.max(1) / 255, 90), rel=1e-4)
    inside, around = (lab[mask][:, 0].mean() for mask in (view.nucleus, view.cell & ~view.nucleus))
    assert measures["colour.difference.lab.L"] == pytest.approx(inside - around, abs=1e-3)


def test_an_even_cell_has_no_texture_and_grains_show():
    even = np.full((120, 120, 3), 140, np.uint8)
    even[:30] = 240
    cell, nucleus = disc(120, (60, 75), 40), disc(120, (60, 75), 15)
    plain = measure(CellView(even, cell, nucleus))
    assert plain["texture.cytoplasm.contrast1"] == 0
    assert plain["texture.cytoplasm.entropy1"] == pytest.approx(0, abs=1e-9)
    assert plain["texture.cytoplasm.grain2.dark.green"] == 0
    grained = even.copy()
    for y in range(45, 110, 8):
        for x in range(25, 100, 8):
            cv2.circle(grained, (x, y), 1, (90, 40, 120), -1)
    measures = measure(CellView(grained, cell, nucleus))
    assert measures["texture.cytoplasm.contrast1"] > 1
    assert measures["texture.cytoplasm.grain2.dark.green"] > 0.02
    assert measures["texture.cytoplasm.grain2.pale.green"] < 0.001


def test_names_are_fixed_unique_and_sorted_into_families(view):
    assert set(measure(view)) | set(measure(CellView(view.image, view.cell, None))) == set(names())
    assert len(set(names())) == len(names()) > 300
    assert {family_of(name) for name in names()} == {"cell shape", "nucleus shape", "colour", "texture"}
    assert not any(letter in name for name in names() for letter in "[]< ")


@pytest.fixture
def field(view, tmp_path):
    """A field with that cell in it, and its record."""
    image = np.full((300, 360, 3), 235, np.uint8)
    labels = np.zeros((300, 360), np.uint8)
    image[100:260, 90:250] = np.where(view.cell[..., None], view.image, 235)
    labels[100:260, 90:250][view.cell] = 1
    labels[100:260, 90:250][view.nucleus] = 2
    write_png(tmp_path / "f.png", image)
    write_png(tmp_path / "m.png", labels)
    cell = {"value": 1, "kind": "wbc", "bbox": [120, 132, 101, 101], "area": 7800, "centroid": [170, 182]}
    return {
        "schema": "wbctool.mask/1",
        "id": "f.png",
        "path": str(tmp_path / "f.png"),
        "mask": str(tmp_path / "m.png"),
        "size": [360, 300],
        "cells": [{**cell, "nucleus": {"value": 2, "area": int(view.nucleus.sum())}}],
    }


def test_a_crop_is_measured_in_pixels_of_its_field(cli, field, tmp_path):
    import json

    (tmp_path / "f.jsonl").write_text(json.dumps(field) + "\n")
    done = cli("crop", tmp_path / "f.jsonl", "-o", tmp_path / "c", "--size", 224)
    assert done.code == 0, done.err
    whole, cropped = dict(zip(names(), vector_of(field), strict=True)), None
    cropped = dict(zip(names(), vector_of(done.records[0]), strict=True))
    for name in ("cell.area", "cell.perimeter", "nucleus.area", "nucleus.major_axis", "nucleus.share_of_cell"):
        assert cropped[name] == pytest.approx(whole[name], rel=0.03), name
    assert cropped["colour.nucleus.lab.L.mean"] == pytest.approx(whole["colour.nucleus.lab.L.mean"], abs=0.5)


def test_what_is_missing_is_nan_and_what_is_wrong_is_named(field):
    bare = {key: value for key, value in field.items() if key != "mask"}
    assert view_of(bare) is None
    assert np.isnan(vector_of(bare)).all()
    assert np.isnan(vector_of({**field, "cells": []})).all()
    del field["cells"][0]["nucleus"]
    measures = dict(zip(names(), vector_of(field), strict=True))
    assert np.isnan(measures["nucleus.area"])
    assert np.isnan(measures["colour.nucleus.lab.a.mean"])
    assert measures["cell.area"] > 1000
    assert np.isfinite(measures["colour.cell.lab.a.mean"])
    field["cells"][0]["value"] = 9
    with pytest.raises(ImageError, match="has no value 9"):
        vector_of(field)
    with Measuring(1) as measuring:
        assert "has no value 9" in measuring([field])[0]


def test_processes_measure_what_one_does(field):
    with Measuring(1) as alone, Measuring(2) as many:
        one, other = alone([field] * 20), many([field] * 20)
    assert np.array_equal(np.stack(one), np.stack(other), equal_nan=True)
