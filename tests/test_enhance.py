"""Contrast, stain and noise."""

import json

import cv2
import numpy as np
import pytest

from wbctool.drawing import draw_field
from wbctool.errors import InputError
from wbctool.imaging.enhancement import StainProfile, clahe, non_local_means, reinhard
from wbctool.imaging.files import read_image


def fields(count=3):
    return [draw_field("lymphocyte", np.random.default_rng(seed))[0] for seed in range(count)]


def statistics(image):
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    return lab.mean(axis=0), lab.std(axis=0)


def test_reinhard_brings_an_image_to_the_references_statistics():
    image, reference, _ = fields()
    before, wanted = statistics(image), statistics(reference)
    after = statistics(reinhard(image, StainProfile.of([reference])))
    for index, tolerance in ((0, 1.5), (1, 1.5)):  # colours outside the gamut are clipped
        assert np.abs(after[index] - wanted[index]).max() <= tolerance
        assert np.abs(after[index] - wanted[index]).sum() < np.abs(before[index] - wanted[index]).sum()


def test_an_images_own_profile_leaves_it_as_it_is():
    (image,) = fields(1)
    assert np.abs(reinhard(image, StainProfile.of([image])).astype(int) - image).max() <= 1


def test_an_image_of_one_colour_is_shifted_and_does_not_fail():
    profile = StainProfile.of(fields(2))
    flat = reinhard(np.full((20, 30, 3), (200, 180, 190), np.uint8), profile)
    assert flat.std(axis=(0, 1)).max() == 0
    assert np.abs(statistics(flat)[0] - profile.mean).max() < 1


def test_clahe_works_on_lightness_alone():
    (image,) = fields(1)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(3.0, (4, 4)).apply(lab[..., 0].copy())
    assert np.array_equal(clahe(image, 3.0, 4), cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def test_non_local_means_takes_noise_away():
    clean = np.full((64, 64, 3), 180, np.uint8)
    clean[20:44, 20:44] = (90, 40, 120)
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 5, clean.shape), 0, 255).astype(np.uint8)
    calm = non_local_means(noisy, 6.0)
    assert np.abs(calm.astype(int) - clean).mean() < 0.4 * np.abs(noisy.astype(int) - clean).mean()


@pytest.fixture(scope="module")
def smears(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smears")
    for number, image in enumerate(fields(4)):
        (folder / "in" / "lymphocyte").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "in" / "lymphocyte" / f"{number}.png"), image[..., ::-1])
    return folder


def test_the_command_writes_images_records_and_a_profile_to_share(cli, smears, tmp_path):
    reference = smears / "in" / "lymphocyte" / "3.png"
    words = ("enhance", smears / "in", "--clahe", "--clip", 3, "--denoise", "nlm", "--strength", 4)
    done = cli(*words, "--reinhard", reference, "-o", tmp_path / "a")
    assert done.code == 0, done.err
    profile = json.loads((tmp_path / "a" / "profile.json").read_text())
    for record in done.records:
        source = read_image(smears / "in" / record["id"])
        wanted = clahe(reinhard(non_local_means(source, 4.0), StainProfile.read(reference)), 3.0)
        assert np.array_equal(read_image(record["path"]), wanted)
        assert record["original"] == str(smears / "in" / record["id"])
        assert record["label"] == "lymphocyte"
        assert record["enhance"] == {
            "denoise": {"method": "nlm", "strength": 4.0},
            "reinhard": {"mean": profile["mean"], "std": profile["std"]},
            "clahe": {"clip": 3.0, "tiles": 8},
        }
    shared = cli(*words, "--reinhard", tmp_path / "a" / "profile.json", "-o", tmp_path / "b")
    assert [read_image(r["path"]).tobytes() for r in shared.records] == [
        read_image(r["path"]).tobytes() for r in done.records
    ]
    assert shared.records[0]["enhance"] == done.records[0]["enhance"]


def test_enhanced_images_go_on_through_the_chain_and_reruns_keep_them(cli, smears, tmp_path):
    first = cli("enhance", smears / "in", "-o", tmp_path / "even", "--clahe")
    stamps = [path.stat().st_mtime_ns for path in sorted((tmp_path / "even").rglob("*.png"))]
    again = cli("enhance", smears / "in", "-o", tmp_path / "even", "--clahe")
    assert "4 images were done before" in again.err
    assert again.out == first.out
    assert stamps == [path.stat().st_mtime_ns for path in sorted((tmp_path / "even").rglob("*.png"))]
    assert cli("segment", tmp_path / "even", "-o", tmp_path / "masks", "--jobs", 1).code == 0
    cells = cli("crop", tmp_path / "masks", "-o", tmp_path / "cells", "--size", 32, "--jobs", 1)
    assert cells.code == 0, cells.err
    for record in cells.records:
        assert record["enhance"] == {"clahe": {"clip": 2.0, "tiles": 8}}
        assert record["source"] == str(tmp_path / "even" / "lymphocyte" / record["original"][-5:])
    twice = cli("enhance", tmp_path / "cells", "-o", tmp_path / "twice", "--clahe", "--jobs", 1)
    assert twice.code == 4
    assert all("was enhanced before" in record["error"] for record in twice.records)


def test_cells_can_be_enhanced_and_keep_their_masks(cli, smears, tmp_path):
    cli("segment", smears / "in", "-o", tmp_path / "masks", "--jobs", 1)
    cells = cli("crop", tmp_path / "masks", "-o", tmp_path / "cells", "--size", 32, "--jobs", 1)
    for _ in range(2):
        done = cli("enhance", tmp_path / "cells", "-o", tmp_path / "even", "--clahe", "--jobs", 1)
        assert done.code == 0, done.err
    assert "were done before" in done.err
    assert [record["mask"] for record in done.records] == [record["mask"] for record in cells.records]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "nothing to do; give --clahe, --reinhard REF or --denoise nlm"),
        (("--denoise", "nlm", "--clip", 3), 2, "--clip and --tiles go with --clahe"),
        (("--clahe", "--strength", 3), 2, "--strength goes with --denoise nlm"),
        (("--denoise", "median"), 2, "--denoise median: choose from nlm"),
        (("--clahe", "--clip", 0), 2, "--clip 0.0: give a number from 0.1 to 100"),
        (("--reinhard", "nothing.png"), 3, "nothing.png"),
        (("--reinhard", "text.json"), 3, "text.json: damaged"),
        (("--reinhard", "other.json"), 3, "other.json: not a stain profile; give an image, or the profile.json"),
        (("--reinhard", "broken.png"), 3, "broken.png"),
    ],
)
def test_an_error_is_one_line(cli, smears, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text("{")
    (tmp_path / "other.json").write_text('{"schema":"wbctool.stain-profile/1","mean":[1,2],"std":[1,2,3]}')
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    done = cli("enhance", smears / "in", "-o", "out", *words)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_a_profile_must_hold_numbers(tmp_path):
    for mean in ('["a",1,2]', "[1,2,1e9]", "7"):
        (tmp_path / "p.json").write_text(f'{{"schema":"wbctool.stain-profile/1","mean":{mean},"std":[1,2,3]}}')
        with pytest.raises(InputError, match="not a stain profile"):
            StainProfile.read(tmp_path / "p.json")
