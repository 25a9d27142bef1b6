"""Windows and crops."""

import numpy as np
import pytest

from wbctool.cropping import CropParameters
from wbctool.cropping.step import box_window, crop_step, cut, roi_window, step_of
from wbctool.errors import ImageError, UsageProblem
from wbctool.records.cells import choose_cells


def cell(value, kind, x, y, area=10):
    return {"value": value, "kind": kind, "bbox": [0, 0, 1, 1], "area": area, "centroid": [x, y]}


FIELD = {
    "schema": "wbctool.mask/1", "id": "a", "path": "a", "mask": "m", "size": [100, 100],
    "cells": [cell(1, "wbc", 10, 10, 90), cell(3, "wbc", 48, 55), cell(5, "platelet", 50, 50), cell(6, "rbc", 51, 50)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "which", "values"),
    [
        (None, "central", [3]),
        (None, "largest", [1]),
        (None, "all", [1, 3]),
        ("platelet", "central", [5]),
        ("rbc", "all", [6]),
        ("any", "all", [1, 3, 5, 6]),
        ("any", "central", [5]),
    ],
)
def test_which_cells_are_cropped(kind, which, values):
    assert [c["value"] for c in choose_cells(FIELD, kind, which)] == values


def test_without_a_white_cell_the_platelet_is_taken():
    assert [c["value"] for c in choose_cells({**FIELD, "cells": FIELD["cells"][2:]}, None, "central")] == [5]
    assert choose_cells({**FIELD, "cells": FIELD["cells"][3:]}, None, "central") == []


def test_the_roi_is_a_square_about_the_centroid_as_wide_as_the_farthest_pixel_and_a_margin():
    mask = np.zeros((100, 100), bool)
    mask[40:61, 30:71] = True  # centre (50, 50), farthest pixel centre at (20, 10)
    x, y, width, height = roi_window(mask, 0.3)
    half = int(np.ceil((np.hypot(20, 10) + 0.5) * 1.3))
    assert (x, y, width, height) == (50 - half, 50 - half, 2 * half + 1, 2 * half + 1)


def test_the_box_is_the_bounding_box_widened_by_its_margin():
    assert box_window([10, 20, 30, 40], 0) == (10, 20, 30, 40)
    assert box_window([10, 20, 30, 40], 0.1) == (7, 16, 36, 48)


def test_a_window_that_reaches_outside_is_padded_by_reflection_and_its_mask_by_background():
    image = np.arange(25, dtype=np.uint8).reshape(5, 5)
    image = np.repeat(image[..., None], 3, axis=2)
    part = cut(image, (-2, -2, 5, 5), 5)
    assert np.array_equal(part, np.pad(image, ((2, 0), (2, 0), (0, 0)), "reflect")[:5, :5])
    labels = np.ones((5, 5), np.uint8)
    assert cut(labels, (-2, -2, 5, 5), 5, labels=True).tolist() == [[0] * 5] * 2 + [[0, 0, 1, 1, 1]] * 3


def test_labels_are_never_blended():
    labels = np.random.default_rng(0).choice(np.array([0, 3, 200], np.uint8), (90, 90))
    assert set(np.unique(cut(labels, (5, 5, 70, 70), 33, labels=True))) <= {0, 3, 200}


@pytest.mark.parametrize(
    "words", [("--method", "x"), ("--which", "x"), ("--kind", "x"), ("--edge", "cut"), ("--denoise", "median")]
)
def test_an_unknown_choice_is_a_usage_error(cli, masks, tmp_path, words):
    done = cli("crop", masks, "-o", tmp_path / "out", *words)
    assert (done.code, f"{words[0]} {words[1]}: choose from" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "limits"), [(("--margin", "-0.1"), "from 0 to 10"), (("--size", "7"), "from 8 to 4096")]
)
def test_a_number_out_of_its_bounds_is_a_usage_error(cli, masks, tmp_path, words, limits):
    done = cli("crop", masks, "-o", tmp_path / "out", *words)
    assert (done.code, words[0] in done.err, limits in done.err) == (2, True, True)


def test_a_run_crops_all_cells_as_its_own_were_cropped():
    step = step_of({"method": "box", "margin": 0.0, "size": 48, "denoise": "nlm"}, "wbc", "drop")
    assert step.settings == {
        "method": "box", "margin": 0.0, "size": 48, "kind": "wbc", "which": "all", "edge": "drop", "denoise": "nlm",
    }  # fmt: skip
    with pytest.raises(UsageProblem, match="shape"):
        step_of({"method": "box", "shape": "round"}, "wbc", "keep")


def test_a_record_without_a_mask_is_an_error_with_the_next_step():
    step = crop_step(CropParameters())
    for record in ({"schema": "wbctool.image/1", "id": "a", "path": "a"}, {**FIELD, "mask": None}):
        with pytest.raises(ImageError, match="wbctool segment"):
            step.expected(record)


def test_cells_cut_by_the_edge_can_be_left_out():
    cut_cells = [{**cell(1, "wbc", 10, 10), "edge": True}, cell(3, "wbc", 90, 90), cell(5, "platelet", 50, 50)]
    field = {**FIELD, "cells": cut_cells}
    assert [c["value"] for c in choose_cells(field, None, "all")] == [1, 3]
    assert [c["value"] for c in choose_cells(field, None, "central", "drop")] == [3]
    alone = {**FIELD, "cells": [cut_cells[0], cut_cells[2]]}
    assert [c["value"] for c in choose_cells(alone, None, "central", "drop")] == [5]
    assert choose_cells(alone, "wbc", "central", "drop") == []


def test_crops_are_denoised_and_their_masks_are_not(cli, masks, tmp_path):
    from wbctool.imaging.enhancement import non_local_means
    from wbctool.imaging.files import read_image, read_labels

    plain = cli("crop", masks, "-o", tmp_path / "plain", "--size", 40, "--jobs", 1)
    calm = cli("crop", masks, "-o", tmp_path / "calm", "--size", 40, "--denoise", "nlm", "--jobs", 1)
    assert plain.code == calm.code == 0, calm.err
    for one, other in zip(plain.records[:6], calm.records[:6], strict=True):
        assert np.array_equal(non_local_means(read_image(one["path"])), read_image(other["path"]))
        assert np.array_equal(read_labels(one["mask"]), read_labels(other["mask"]))
        assert other["crop"] == {**one["crop"], "denoise": "nlm"}
    again = cli("crop", masks, "-o", tmp_path / "plain", "--size", 40, "--denoise", "nlm", "--jobs", 1)
    assert (again.code, "denoise" in again.err) == (2, True)
