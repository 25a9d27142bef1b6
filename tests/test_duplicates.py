"""Near-duplicates: the hash, local features, and splits and audits that use them."""

import json
import shutil

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wbctool.imaging.duplicates import Duplicates, find_duplicates
from wbctool.imaging.files import read_image
from wbctool.imaging.inputs import scaled_to
from wbctool.imaging.local_features import find_copies, local_features
from wbctool.imaging.perceptual_hash import WITHIN, near_pairs, perceptual_hash


@pytest.fixture(scope="module")
def fields(drawn):
    return [read_image(path) for path in sorted((drawn / "images").glob("*/*.jpg"))]


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def hamming_distance(one, other):
    return int(np.bitwise_count(one[:, None] ^ other[None]).sum(axis=-1).min())


CHANGES = {
    "compressed": lambda image: jpeg(image, 50),
    "halved": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "stretched": lambda image: cv2.resize(image, None, fx=1.6, fy=1.2, interpolation=cv2.INTER_CUBIC),
    "darker": lambda image: cv2.convertScaleAbs(image, alpha=0.85, beta=5),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "turned": lambda image: np.ascontiguousarray(np.rot90(image, 3)),
    "transposed and compressed": lambda image: jpeg(np.ascontiguousarray(image.transpose(1, 0, 2)), 70),
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_duplicates_have_near_hashes_and_others_do_not(fields, change):
    hashes = [perceptual_hash(image) for image in fields[:24]]
    changed = [perceptual_hash(CHANGES[change](image)) for image in fields[:24]]
    assert [hamming_distance(*pair) <= WITHIN for pair in zip(hashes, changed, strict=True)] == [True] * 24
    others = [hamming_distance(hashes[i], changed[j]) for i in range(24) for j in range(24) if i != j]
    assert min(others) > 2 * WITHIN


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 24))
def test_near_pairs_are_those_of_comparing_each_with_each(seed, within):
    rng = np.random.default_rng(seed)
    bits = rng.random((60, 256)) < 0.5
    for copy in range(30, 60):  # near copies, exact copies
        bits[copy] = bits[rng.integers(0, 30)] ^ (rng.random(256) < rng.choice([0, 0.03, 0.08]))
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    pairs = near_pairs(hashes, within)
    found_pairs = {tuple(pair) for pair in pairs.tolist()}
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=-1)
    near = {(i, j) for i in range(60) for j in range(i + 1, 60) if distance[i, j] <= within}
    assert found_pairs <= near
    family = Duplicates(60, pairs, np.zeros((60, 2))).families
    assert all(family[i] == family[j] for i, j in near)


def affine(image, degrees=0.0, shear=0.0, mirror=False, shift=0):
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    matrix = np.vstack([matrix, [0, 0, 1]]) @ np.array([[1, shear, shift], [0, 1, 0], [0, 0, 1.0]])
    image = image[:, ::-1] if mirror else image
    return cv2.warpAffine(np.ascontiguousarray(image), matrix[:2], (width, height), borderMode=cv2.BORDER_REFLECT)


@pytest.mark.parametrize(
    "change",
    [{"degrees": 17}, {"degrees": 140, "mirror": True}, {"shear": 0.12}, {"degrees": -30, "shear": 0.1, "shift": 12}],
)
def test_turned_and_sheared_copies_are_found_and_nothing_else(fields, change):
    images = [cv2.resize(image, (320, 320), interpolation=cv2.INTER_CUBIC) for image in fields[:16]]
    changed = [jpeg(affine(image, **change), 80) for image in images]
    features = [local_features(image) for image in [*images, *changed]]
    found_pairs = {tuple(pair) for pair in find_copies(features).tolist()}
    assert found_pairs <= {(i, i + 16) for i in range(16)}
    assert len(found_pairs) >= 14


def test_images_of_one_colour_and_unreadable_ones_do_not_disturb(tmp_path):
    for name, value in (("a", 255), ("b", 255), ("c", 128)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((64, 64, 3), value, np.uint8))
    (tmp_path / "d.png").write_bytes(b"no image")
    duplicates = find_duplicates([str(tmp_path / f"{name}.png") for name in "abcde"])
    assert duplicates.pairs.tolist() == [[0, 1]]
    assert duplicates.families[0] == duplicates.families[1]
    assert len(set(duplicates.families)) == 4
    assert sorted(duplicates.failed) == [3, 4]
    assert find_duplicates([]).pairs.shape == (0, 2)


@pytest.fixture
def copied(drawn, tmp_path):
    """Every field with two copies, a mirrored and a smaller one, under names that tell nothing."""
    folder = tmp_path / "set"
    for number, path in enumerate(sorted((drawn / "images").glob("*/*.jpg"))):
        place = folder / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / f"{number}_a.jpg")
        image = cv2.imread(str(path))
        cv2.imwrite(str(place / f"{number}_b.jpg"), image[:, ::-1])
        cv2.imwrite(str(place / f"{number}_c.png"), cv2.resize(image, (120, 120), interpolation=cv2.INTER_AREA))
    return folder


def test_a_split_keeps_copies_on_one_side(cli, copied):
    plain = cli("split", copied, "-q").records
    done = cli("split", copied, "--near-duplicates")
    assert done.code == 0
    assert "96 of 144 images are near-duplicates" in done.err

    def sides(records):
        sides_of_slide = {}
        for record in records:
            sides_of_slide.setdefault(record["path"].rpartition("/")[2].partition("_")[0], set()).add(record["split"])
        return sides_of_slide.values()

    assert any(len(side) > 1 for side in sides(plain))
    assert all(len(side) == 1 for side in sides(done.records))
    first = {r["id"] for r in done.records if "near_duplicate_of" not in r}
    assert {r["near_duplicate_of"] for r in done.records if "near_duplicate_of" in r} == first
    assert len({r["group"] for r in done.records}) == 48


def test_groups_that_share_an_image_become_one_and_others_stay(cli, copied, tmp_path):
    (tmp_path / "groups.csv").write_text(
        "image,group\n"
        + "".join(f"{path.name},{path.stem[-1]}-{int(path.stem[:-2]) < 47}\n" for path in copied.glob("*/*"))
    )
    done = cli("split", copied, "--near-duplicates", "--labels", tmp_path / "groups.csv", "-q", "--ratio", "50/50")
    groups = {record["group"] for record in done.records}
    assert groups == {"a-True", "a-False"}


def test_images_that_cannot_be_compared_are_named(cli, copied):
    bad = next(copied.glob("*/*.png"))
    bad.write_bytes(b"\x89PNG")
    done = cli("split", copied, "--near-duplicates")
    assert done.code == 4
    assert str(bad) in done.err
    assert len(done.records) == 144
    assert cli("split", copied, "--near-duplicates", "--skip-bad", "-q").code == 0
    shutil.move(copied, copied.with_name("gone"))
    done = cli("split", "-", "--near-duplicates", stdin=done.out)
    assert (done.code, done.out) == (3, "")


def test_images_of_one_name_in_two_folders_are_told_apart(cli, drawn, tmp_path):
    fields = sorted((drawn / "images").glob("*/*.jpg"))[:3]
    for folder, numbers in (("A", (0, 1)), ("B", (0, 2))):
        (tmp_path / folder / "x").mkdir(parents=True)
        for number in numbers:
            shutil.copy(fields[number], tmp_path / folder / "x" / f"{number}.jpg")
    shutil.copy(fields[2], tmp_path / "A" / "x" / "2.jpg")
    shutil.copy(fields[1], tmp_path / "A" / "x" / "again.jpg")
    done = cli("split", tmp_path / "A", tmp_path / "B", "--near-duplicates")
    assert "3 of 6 images are near-duplicates" in done.err
    assert sum("near_duplicate_of" in record for record in done.records) == 3
    assert len({record["group"] for record in done.records}) == 3


def test_folds_that_cannot_be_are_refused_before_any_image_is_read(cli, copied):
    done = cli("split", copied, "--near-duplicates", "--folds", 3, "--fold", 5)
    assert done.code == 2
    assert "near-duplicates:" not in done.err


@pytest.mark.data
@pytest.mark.slow
def test_copies_in_the_public_set_are_found_with_their_originals(data):
    folder = data / "blood-cell-images"
    tested, originals = (sorted(map(str, (folder / name).glob("*/*"))) for name in ("TEST", "TEST_SIMPLE"))
    pairs = find_duplicates([*tested, *originals]).pairs
    linked = {i for i, j in pairs.tolist() if i < len(tested) <= j}
    assert len(linked) >= 0.93 * len(tested)
    labels = [path.split("/")[-2] for path in [*tested, *originals]]
    assert sum(labels[i] != labels[j] for i, j in pairs) == 0


@pytest.mark.data
def test_different_cells_of_one_slide_are_no_copies(data):
    paths = sorted(map(str, (data / "pbc").glob("*/*.jpg")))[::4]
    assert len(find_duplicates(paths).pairs) == 0


def test_scaling_is_opencvs_to_one_level(fields):
    for image in (fields[0], fields[1][:97, :61]):
        way = cv2.INTER_AREA if min(image.shape[:2]) >= 96 and image.shape[1] >= 96 else cv2.INTER_LINEAR
        theirs = cv2.resize(image, (96, 96), interpolation=way).astype(int)
        assert np.abs(scaled_to(image, 96).astype(int) - theirs).max() <= 1
    flat = np.full((50, 70, 3), 255, np.uint8)
    assert (scaled_to(flat, 32) == 255).all()
    assert (scaled_to(flat, 128) == 255).all()


def audited(cli, predictions, known, tmp_path, *more):
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, predictions)))
    (tmp_path / "known.jsonl").write_text("\n".join(map(json.dumps, known)))
    done = cli("evaluate", tmp_path / "p.jsonl", "--audit", "--trained-on", tmp_path / "known.jsonl", "--json", *more)
    assert done.code == 0, done.err
    audit = json.loads(done.out)["audit"]
    return {check["name"]: check for check in audit["checks"]}, audit


def predictions_of(paths, incorrect=()):
    made = []
    for number, path in enumerate(paths):
        label = path.parent.name
        probabilities = dict.fromkeys(sorted({p.parent.name for p in paths}), 0.0)
        predicted = label if number not in incorrect else next(name for name in probabilities if name != label)
        made.append({
            "schema": "wbctool.prediction/1", "id": f"t/{path.name}", "path": str(path), "label": label,
            "predicted": predicted, "confidence": 1.0, "probabilities": {**probabilities, predicted: 1.0},
        })  # fmt: skip
    return made


def trained(paths, **more):
    return [
        {"schema": "wbctool.image/1", "id": f"k/{path.name}", "path": str(path), "label": path.parent.name, **more}
        for path in paths
    ]


def test_an_audit_finds_what_training_has_seen(cli, copied, tmp_path):
    tested = sorted(copied.glob("*/*_a.jpg"))
    half = [path.with_name(path.name.replace("_a", "_b")) for path in tested[::2]]
    checks, found = audited(cli, predictions_of(tested, incorrect=(1, 3)), trained(half), tmp_path)
    near = checks["near_duplicates"]
    assert (near["count"], near["of"]) == (24, 48)
    assert near["without"]["n"] == 24
    assert near["without"]["accuracy"] == pytest.approx(22 / 24)
    assert near["examples"][0] == [str(tested[0]), str(half[0])]
    assert (found["tainted"], found["trained_on"]) == (24, 24)
    assert checks["groups"]["count"] == checks["composites"]["count"] == 0


def test_an_audit_finds_groups_composites_and_missing_classes(cli, copied, tmp_path):
    tested, other = (
        sorted(copied.glob("*/0_a.jpg"))[:1] + sorted(copied.glob("*/1*_a.jpg")),
        sorted(copied.glob("*/2*_a.jpg")),
    )
    predictions = predictions_of(tested)
    predictions[0]["group"], predictions[1]["synthetic"] = "slide-1", True
    known = trained(other, group="slide-1")
    known[0]["sources"] = [predictions[2]["id"]]
    checks, found = audited(cli, predictions, known, tmp_path, "--allow-synthetic")
    assert checks["groups"]["count"] == 1
    assert checks["groups"]["examples"][0][0] == "slide-1"
    assert checks["composites"]["count"] == 2
    assert found["tainted"] == 3
    untrained = {r["label"] for r in predictions} - {r["label"] for r in known}
    assert checks["classes"]["count"] == len(untrained) > 0


def test_an_audit_finds_metadata_that_tell_the_class(cli, copied, tmp_path):
    tested, other = sorted(copied.glob("*/*_a.jpg")), sorted(copied.glob("*/*_b.jpg"))
    names = sorted({path.parent.name for path in tested})
    predictions, known = predictions_of(tested, incorrect=range(0, 48, 5)), trained(other)
    for record in (*predictions, *known):
        record["microscope"] = f"m{names.index(record['label']) // 2}"
    checks, _ = audited(cli, predictions, known, tmp_path)
    metadata = checks["metadata"]
    assert metadata["feature"] == "microscope"
    assert metadata["balanced_accuracy"] == pytest.approx(0.5)
    assert (metadata["count"], metadata["of"]) == (24, 48)
    assert metadata["without"]["n"] == 24


def test_a_run_folder_knows_what_it_was_trained_on(cli, run_folder):
    done = cli("evaluate", run_folder, "--audit")
    assert done.code == 0
    assert "✓ tested images that training has seen" in done.out
    assert max(len(line) for line in done.out.splitlines() if "/" not in line) <= 80
    done = cli("evaluate", run_folder, "--audit", "--split", "all", "--json")
    checks = {check["name"]: check for check in json.loads(done.out)["audit"]["checks"]}
    val = sum('"split":"val"' in line for line in (run_folder / "predictions.jsonl").read_text().splitlines())
    assert checks["near_duplicates"]["count"] == checks["groups"]["count"] == val > 0


def test_an_audit_is_blind_where_images_are_gone(cli, copied, tmp_path):
    tested, other = sorted(copied.glob("*/*_a.jpg")), sorted(copied.glob("*/*_b.jpg"))
    predictions, known = predictions_of(tested), trained(other)
    for path in (*tested, *other):
        if path.parent.name == "basophil":
            path.unlink()
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, predictions)))
    (tmp_path / "known.jsonl").write_text("\n".join(map(json.dumps, known)))
    done = cli("evaluate", tmp_path / "p.jsonl", "--audit", "--trained-on", tmp_path / "known.jsonl")
    assert "12 images cannot be read" in done.out
    assert "image size alone" not in done.out
    for path in (*tested, *other):
        path.unlink(missing_ok=True)
    done = cli("evaluate", tmp_path / "p.jsonl", "--audit", "--trained-on", tmp_path / "known.jsonl")
    text = " ".join(done.out.split())
    assert "? tested images that training has seen, the same or nearly: not all could be looked at" in text


def test_chance_among_groups_and_among_many_features_is_no_finding(cli, copied, tmp_path):
    tested, other = sorted(copied.glob("*/*_a.jpg")), sorted(copied.glob("*/*_b.jpg"))
    rng = np.random.default_rng(0)
    predictions, known = predictions_of(tested), trained(other)
    for record in (*predictions, *known):
        record["group"] = ("k" if record in known else "t") + record["label"]
        record["lot"] = f"{len(record['label']) % 3}"  # of the group, and so of the class
        for number in range(12):
            record[f"f{number}"] = int(rng.integers(0, 3))
        record["sources"] = 5
    checks, _ = audited(cli, predictions, known, tmp_path)
    assert checks["metadata"]["count"] == 0
    for record in (*predictions, *known):
        record["group"], record["scanner"] = record["id"], record["label"]
    checks, _ = audited(cli, predictions, known, tmp_path)
    assert checks["metadata"].get("feature") == "scanner"


def test_an_audit_takes_a_run_folder_for_what_it_was_trained_on(cli, run_folder, tmp_path):
    shutil.copy(run_folder / "predictions.jsonl", tmp_path / "p.jsonl")
    words = ("evaluate", tmp_path / "p.jsonl", "--audit", "--json", "--split", "val")
    explicit = json.loads(cli(*words, "--trained-on", run_folder).out)["audit"]
    named = json.loads(cli(*words).out)["audit"]
    train = sum('"split":"train"' in line for line in (run_folder / "dataset.jsonl").read_text().splitlines())
    assert explicit["trained_on"] == named["trained_on"] == train


def test_an_audit_without_training_records_says_what_to_give(cli, tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps(predictions_of([tmp_path / "A" / "1.png"])[0]))
    done = cli("evaluate", tmp_path / "p.jsonl", "--audit")
    assert done.code == 3
    assert "--trained-on" in done.err
    assert cli("evaluate", tmp_path / "p.jsonl", "--trained-on", tmp_path / "p.jsonl").code == 2
