"""`predict --fields` and `--tta`."""

import json
import shutil

import numpy as np
import pytest
import torch

from wbctool.modeling.run_folder import load


@pytest.fixture(scope="module")
def fields(drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields") / "smears"
    for path in sorted((drawn / "images").glob("*/*1.jpg")):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name / path.name)
    return folder


def test_fields_give_what_the_steps_one_by_one_give(cli, run_folder, fields, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    done = cli("predict", run_folder, fields, "--fields", "--jobs", 1, "-q")
    assert done.code == 0, done.err
    assert list((tmp_path / "t").iterdir()) == []
    cli("segment", fields, "-o", tmp_path / "m", "-q")
    cli("crop", tmp_path / "m", "-o", tmp_path / "c", "--kind", "wbc", "--which", "all", "--size", 48, "-q")
    expected = cli("predict", run_folder, tmp_path / "c", "-q").records
    assert [r["id"] for r in done.records] == [r["id"] for r in expected]
    for own, theirs in zip(done.records, expected, strict=True):
        assert own["bbox"] == theirs["bbox"]
        assert own["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
        assert own["path"] == own["source"] == theirs["source"]
        assert "mask" not in own


def test_cells_can_be_kept(cli, run_folder, fields, tmp_path):
    done = cli("predict", run_folder, fields, "--fields", "--cells", tmp_path / "kept", "--jobs", 1, "-q")
    assert all(record["path"].startswith(str(tmp_path / "kept")) for record in done.records)
    again = cli("predict", run_folder, "-", "-q", stdin="\n".join(map(json.dumps, _as_cells(done.records))))
    assert [r["probabilities"] for r in again.records] == [r["probabilities"] for r in done.records]


def _as_cells(records):
    made = ("run", "predicted", "confidence", "probabilities", "temperature")
    return [{**{k: v for k, v in r.items() if k not in made}, "schema": "wbctool.cell/1"} for r in records]


def test_a_field_that_fails_is_an_error_record_and_the_others_are_predicted(cli, run_folder, fields, tmp_path):
    copy = tmp_path / "in"
    shutil.copytree(fields, copy)
    first = next(copy.glob("*/*.jpg"))
    first.write_bytes(first.read_bytes()[:400])
    done = cli("predict", run_folder, copy, "--fields", "--jobs", 1)
    assert done.code == 4
    errors = [r for r in done.records if r["schema"] == "wbctool.error/1"]
    assert [r["path"] for r in errors] == [str(first)]
    assert len(done.records) > 5


def test_enhancement_and_constants_are_repeated(cli, drawn, fields, tmp_path):
    from conftest import TINY

    cli("enhance", drawn / "images", "-o", tmp_path / "e", "--clahe", "-q")
    cli("segment", tmp_path / "e", "-o", tmp_path / "m", "--method", "cyan-otsu", "--radius", 2, "-q")
    cli("crop", tmp_path / "m", "-o", tmp_path / "c", "--size", 48, "--margin", 0.5, "-q")
    done = cli("train", tmp_path / "c", "-o", tmp_path / "run", *TINY, "--epochs", 0, "-q")
    assert done.code == 0, done.err
    preparation = json.loads((tmp_path / "run" / "model.json").read_text())["preparation"]
    assert preparation["segment"] == {"method": "cyan-otsu", "radius": 2}
    found = cli("predict", tmp_path / "run", fields, "--fields", "--jobs", 1, "-q").records
    ids = {r["id"]: r for r in found}
    known = [json.loads(line) for line in (tmp_path / "c" / "records.jsonl").read_text().splitlines()]
    both = [r for r in known if r["id"] in ids]
    assert len(both) >= 5
    assert all(ids[r["id"]]["bbox"] == r["bbox"] for r in both)
    assert all("enhance" in r and r["path"].startswith(str(fields)) for r in found)


def test_runs_that_know_no_preparation_and_inputs_that_are_no_fields(cli, run_folder, cells, fields, tmp_path):
    done = cli("predict", run_folder, cells, "--fields", "--jobs", 1)
    assert (done.code, done.out) == (3, "")
    assert "is not a whole field" in done.err
    before = sorted(fields.rglob("*"))
    for place in (fields, fields.parent):
        done = cli("predict", run_folder, fields, "--fields", "--cells", place, "--jobs", 1)
        assert done.code == 2
        assert "give another folder" in done.err
    assert sorted(fields.rglob("*")) == before
    done = cli("predict", run_folder, run_folder)
    assert done.code == 2
    assert "is a run folder" in done.err
    plain = tmp_path / "run"
    shutil.copytree(run_folder, plain)
    model = json.loads((plain / "model.json").read_text())
    (plain / "model.json").write_text(json.dumps({**model, "preparation": {}}))
    done = cli("predict", plain, fields, "--fields")
    assert (done.code, done.out) == (3, "")
    assert "leave out --fields" in done.err
    assert cli("predict", run_folder, plain, fields, "--fields").code == 3
    assert cli("predict", run_folder, fields, "--cells", tmp_path / "x").code == 2


def test_tta_is_the_mean_over_the_eight_symmetries(cli, run_folder, cells):
    from wbctool.imaging.inputs import to_input
    from wbctool.statistics.calibration import scaled

    rows = cli("predict", run_folder, cells, "--tta", "--precision", "float32", "-q").records
    run = load(run_folder, torch.device("cpu"))
    assert all(row["views"] == 8 for row in rows)
    for row in rows[:4]:
        image = to_input(row["path"], 48)
        views = [np.rot90(way, turns) for way in (image, image[:, ::-1]) for turns in range(4)]
        batch = torch.from_numpy(np.stack(views).copy()).permute(0, 3, 1, 2)
        with torch.inference_mode():
            mean = torch.softmax(run.model(batch).double(), 1).mean(0, keepdim=True).numpy()
        expected = dict(zip(run.classes, scaled(mean, run.temperature)[0], strict=True))
        assert row["probabilities"] == pytest.approx(expected, abs=2e-5)


def test_fields_without_a_cell_leave_no_file(cli, run_folder, tmp_path, monkeypatch):
    import cv2

    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "t").mkdir()
    (tmp_path / "blank").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "blank" / f"{number}.png"), np.full((100, 100, 3), 230, np.uint8))
    left = []
    from wbctool.inference import predict

    def watched(step, records, *more, **named):
        for record in records:
            raise AssertionError(f"{record['id']}: nothing is to be predicted")
        left.extend(path for path in (tmp_path / "t").rglob("*") if path.is_file())
        return run_records(step, [], *more, **named)

    run_records = predict.run_records
    monkeypatch.setattr(predict, "run_records", watched)
    done = cli("predict", run_folder, tmp_path / "blank", "--fields", "--jobs", 1)
    assert "3 fields without a cell" in done.err
    assert left == []


def test_a_file_of_another_precision_is_not_taken_up(cli, run_folder, cells, tmp_path):
    exact = cli("predict", run_folder, cells, "-o", tmp_path / "p.jsonl", "--precision", "float32", "-q").records
    refused = cli("predict", run_folder, cells, "-o", tmp_path / "p.jsonl", "-q")
    assert (refused.code, "precision float32, not as trained" in refused.err) == (2, True)
    usual = cli("predict", run_folder, cells, "-o", tmp_path / "p.jsonl", "-q", "--overwrite").records
    assert {r.get("precision") for r in exact} == {"float32"}
    assert {r.get("precision") for r in usual} == {None}


def test_a_file_of_other_views_is_not_taken_up(cli, run_folder, cells, tmp_path):
    plain = cli("predict", run_folder, cells, "-o", tmp_path / "p.jsonl", "-q").records
    refused = cli("predict", run_folder, cells, "-o", tmp_path / "p.jsonl", "--tta", "-q")
    assert (refused.code, "views as trained, not 8" in refused.err) == (2, True)
    turned = cli("predict", run_folder, cells, "-o", tmp_path / "p.jsonl", "--tta", "-q", "--overwrite").records
    fresh = cli("predict", run_folder, cells, "--tta", "-q").records
    assert turned == fresh
    assert not any("views" in r for r in plain)
    assert all(r["views"] == 8 for r in turned)
