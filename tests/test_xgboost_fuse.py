"""`xgboost-fuse` on the command line: its run folder, splits without leakage, errors."""

import json
import shutil
import subprocess
import time

import numpy as np
import pytest
import xgboost
from conftest import TINY, contents, in_shell, preloaded_wbctool, read_records, write_records

from wbctool.measuring.morphology import names

FAST = ("--rounds", 15, "--patience", 5, "--jobs", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def cbam(cells, tmp_path_factory):
    """A run with CBAM and side heads, its probabilities the mean of 8 views."""
    out = tmp_path_factory.mktemp("cbam") / "cbam"
    more = ("--attention", "cbam", "--side-heads", "covariance", "--set", "symmetries=8")
    done = in_shell("train", cells, "-o", out, *TINY, "--epochs", 2, *more)
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="module")
def fused(cells, run_folder, cbam, tmp_path_factory):
    """Both, with all features."""
    out = tmp_path_factory.mktemp("fused") / "fused"
    more = ("--morphology", "--probabilities", "--all-features")
    done = in_shell("xgboost-fuse", run_folder, cbam, cells, "-o", out, *more, *FAST)
    assert done.code == 0, done.err
    assert read_records(out / "predictions.jsonl")
    assert [row["id"] for row in done.records] == [row["id"] for row in read_records(out / "predictions.jsonl")]
    return out


def model_of(run):
    return json.loads((run / "model.json").read_text())


def test_the_result_is_a_run_folder_whose_predictions_predict_repeats(cli, fused, cells, run_folder, cbam):
    model = model_of(fused)
    booster = xgboost.Booster(model_file=fused / "model.ubj")
    assert booster.feature_names == model["features"]
    widths = dict(zip(model["names"], model["widths"], strict=True))
    deep = [name for name in model["features"] if ".deep." in name]
    assert len(deep) == sum(widths.values())
    assert deep[0] == "a.deep.0000"
    assert [name for name in model["features"] if name in names()] == list(names())
    assert sum("probability" in name for name in model["features"]) == 2 * len(model["classes"])
    assert [run["run"] for run in model["training"]["runs"]] == [str(run_folder), str(cbam)]
    assert set(model["checksums"]) == {"weights.safetensors", "model.ubj"}
    kept = {row["id"]: row for row in read_records(fused / "predictions.jsonl")}
    assert {row["split"] for row in kept.values()} == {"val", "test"}
    done = cli("predict", fused, cells, "-q", "--jobs", 1)
    assert done.code == 0, done.err
    predicted = {row["id"]: row for row in done.records}
    assert set(kept) < set(predicted)
    for key, row in kept.items():
        assert predicted[key]["probabilities"] == pytest.approx(row["probabilities"], abs=1e-5)
        assert predicted[key]["temperature"] == row["temperature"] == model["calibration"]["temperature"]
    figures = cli("evaluate", fused, "--json")
    assert figures.code == 0, figures.err
    assert 0 <= json.loads(figures.out)["macro_f1"] <= 1
    facts = json.loads(cli("info", fused, "--json").out)
    assert facts["fused"] == "xgboost"
    assert facts["parts"] == ["deep", "probabilities", "morphology"]


def test_same_seed_same_bytes_and_features_are_kept_for_another_fuse(cli, fused, cells, run_folder, cbam, tmp_path):
    shutil.copytree(fused / "features", tmp_path / "features")
    before = {file: file.read_bytes() for file in sorted((tmp_path / "features").iterdir())}
    more = ("--morphology", "--probabilities", "--all-features", "--features", tmp_path / "features")
    done = cli("xgboost-fuse", run_folder, cbam, cells, "-o", tmp_path / "b", *more, *FAST)
    assert done.code == 0, done.err
    for name in ("model.ubj", "weights.safetensors", "importance.json", "importance.png", "history.jsonl"):
        assert (tmp_path / "b" / name).read_bytes() == (fused / name).read_bytes(), name
    assert before == {file: file.read_bytes() for file in sorted((tmp_path / "features").iterdir())}
    again = cli("xgboost-fuse", run_folder, cbam, cells, "-o", tmp_path / "b", *more, *FAST)
    assert again.code == 0
    assert "was fused before" in again.err
    assert again.out == done.out
    other = cli("xgboost-fuse", run_folder, cbam, cells, "-o", tmp_path / "b", *more, *FAST, "--seed", 1)
    assert other.code == 2
    assert "made with seed 0, not with seed 1" in other.err
    again = cli("xgboost-fuse", run_folder, cbam, cells, "-o", tmp_path / "b", *more, *FAST, "--seed", 1, "--overwrite")
    assert again.code == 0, again.err
    assert (tmp_path / "b" / "model.ubj").read_bytes() != (fused / "model.ubj").read_bytes()


def test_test_images_cannot_enter_and_validation_only_stops(cli, cells, tmp_path):
    records = [r for r in cli("split", cells, "--ratio", "1/1/1", "-q").records if r["schema"] == "wbctool.cell/1"]
    labels = sorted({r["label"] for r in records})
    dumps = {}
    for name, changed in (("plain", ()), ("test", ("test",)), ("both", ("val", "test"))):
        changed_records = [
            {**r, "label": labels[(labels.index(r["label"]) + 1) % len(labels)]} if r["split"] in changed else r
            for r in records
        ]
        file = write_records(tmp_path / f"{name}.jsonl", changed_records)
        more = ("--features", tmp_path / "kept", "-q")
        done = cli("xgboost-fuse", file, "-o", tmp_path / name, "--morphology", *FAST, *more)
        assert done.code == 0, done.err
        booster = xgboost.Booster(model_file=tmp_path / name / "model.ubj")
        dumps[name] = (booster, (tmp_path / name / "model.ubj").read_bytes())
    assert dumps["plain"][1] == dumps["test"][1]
    rounds = min(dumps[name][0].num_boosted_rounds() for name in ("plain", "both"))
    assert rounds >= 1
    plain, both = (dumps[name][0][:rounds].get_dump(with_stats=True) for name in ("plain", "both"))
    assert plain == both


def test_by_default_only_features_that_validation_gains_by_are_used(cli, fused, cells, run_folder, cbam, tmp_path):
    more = ("--morphology", "--features", fused / "features", "-q")
    done = cli("xgboost-fuse", run_folder, cbam, cells, "-o", tmp_path / "x", *more, *FAST)
    assert done.code == 0, done.err
    tried = json.loads((tmp_path / "x" / "run.json").read_text())["tried"]
    assert [row["features"] for row in tried] == [["deep", "morphology"], ["deep"], ["morphology"]]
    best = min(tried, key=lambda row: row["loss"])
    assert model_of(tmp_path / "x")["parts"] == best["features"]
    assert model_of(tmp_path / "x")["best_epoch"] == best["rounds"]


def test_importance_adds_up(fused):
    importance = json.loads((fused / "importance.json").read_text())
    families = {row["family"]: row for row in importance["families"]}
    assert set(families) >= {"a: deep", "cbam: deep", "a: probabilities", "colour", "texture", "nucleus shape"}
    for key in ("gain_share", "shap_share"):
        assert sum(row[key] or 0 for row in families.values()) == pytest.approx(1, abs=1e-4)
    gains = xgboost.Booster(model_file=fused / "model.ubj").get_score(importance_type="total_gain")
    assert {row["feature"]: row["gain"] for row in importance["features"]} == pytest.approx(gains, rel=1e-4)
    colour = sum(gain for name, gain in gains.items() if name.startswith("colour."))
    assert families["colour"]["gain"] == pytest.approx(colour, rel=1e-4)
    assert families["colour"]["used"] == sum(name.startswith("colour.") for name in gains)


def test_runs_are_averaged_and_made_an_ensemble(cli, fused, run_folder, cells, tmp_path):
    mean = cli("predict", fused, run_folder, cells, "-q")
    assert mean.code == 0, mean.err
    out = tmp_path / "both"
    done = cli("train", fused, run_folder, cells, "-o", out, "--ensemble", "average", "--device", "cpu", "-q")
    assert done.code == 0, done.err
    alone = {row["id"]: row["probabilities"] for row in cli("predict", fused, cells, "-q").records}
    predicted = cli("predict", out, cells, "-q")
    assert predicted.code == 0, predicted.err
    assert {row["id"] for row in predicted.records} == set(alone)
    assert (out / "member-1-model.ubj").read_bytes() == (fused / "model.ubj").read_bytes()
    refused = cli("train", fused, run_folder, cells, "-o", tmp_path / "c", "--ensemble", "cbam", "--device", "cpu")
    assert refused.code == 3
    assert "use --ensemble average" in refused.err


def test_networks_of_two_sizes_get_the_images_of_predict(cli, run_folder, cells, tmp_path):
    words = [word if word != "48" else "64" for word in TINY]
    assert cli("train", cells, "-o", tmp_path / "wide", *words, "--epochs", 0, "-q").code == 0
    done = cli("xgboost-fuse", run_folder, tmp_path / "wide", cells, "-o", tmp_path / "f", *FAST, "-q")
    assert done.code == 0, done.err
    kept = {row["id"]: row["probabilities"] for row in done.records}
    predicted = {row["id"]: row["probabilities"] for row in cli("predict", tmp_path / "f", cells, "-q").records}
    for key, probabilities in kept.items():
        assert predicted[key] == pytest.approx(probabilities, abs=1e-5)


def test_an_unfinished_run_is_no_folder_of_images(cli, cells, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"command": "train", "finished": false}')
    done = cli("xgboost-fuse", tmp_path / "run", cells, "-o", tmp_path / "x", "--morphology")
    assert done.code == 3
    assert "`wbctool train` has not finished it" in done.err


def test_predictions_are_made_again_where_masks_come_later(cli, fused, run_folder, cells, tmp_path):
    rows = cli("split", cells, "--ratio", "1/1/1", "-q").records[:6]
    bare = [{key: value for key, value in row.items() if key != "mask"} for row in rows]
    out = ("-o", tmp_path / "p.jsonl", "-q")
    assert cli("predict", run_folder, write_records(tmp_path / "bare.jsonl", bare), "-q").code == 0
    assert cli("predict", fused, write_records(tmp_path / "bare.jsonl", bare), *out).code == 4
    done = cli("predict", fused, write_records(tmp_path / "whole.jsonl", rows), *out)
    assert done.code == 0, done.err
    assert all("mask" in row for row in read_records(tmp_path / "p.jsonl"))


def test_an_ensemble_is_fused_too(cli, run_folder, cbam, cells, tmp_path):
    done = cli("train", run_folder, cbam, cells, "-o", tmp_path / "e", "--ensemble", "average", "--device", "cpu", "-q")
    assert done.code == 0, done.err
    done = cli("xgboost-fuse", tmp_path / "e", cells, "-o", tmp_path / "f", *FAST, "-q")
    assert done.code == 0, done.err
    widths = model_of(tmp_path / "f")["widths"]
    assert widths == [2 * 512]
    kept = {row["id"]: row["predicted"] for row in read_records(tmp_path / "f" / "predictions.jsonl")}
    predicted = {row["id"]: row["predicted"] for row in cli("predict", tmp_path / "f", cells, "-q").records}
    assert kept.items() <= predicted.items()


def test_features_only(cli, run_folder, cells, tmp_path):
    words = ("xgboost-fuse", run_folder, cells, "-o", tmp_path / "x", "--features-only", "--morphology", "--jobs", 1)
    done = cli(*words)
    assert done.code == 0, done.err
    with np.load(tmp_path / "x" / "features.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert arrays["features"].shape == (len(done.records), 512 + len(names()))
    assert arrays["features"].dtype == np.float32
    assert list(arrays["names"][512:]) == list(names())
    assert list(arrays["ids"]) == [row["id"] for row in done.records]
    assert list(arrays["labels"]) == [row["label"] for row in done.records]
    assert [row["row"] for row in done.records] == list(range(len(done.records)))
    before = contents(tmp_path / "x")
    again = cli(*words)
    assert (again.code, again.out) == (0, done.out)
    assert contents(tmp_path / "x") == before


def test_python_functions_do_what_the_command_does(cli, fused, run_folder, cbam, cells, tmp_path, capsys):
    from wbctool.fusing import BoostingOptions, FusionOptions, compute_features, fuse_runs

    settings = BoostingOptions(rounds=15, patience=5, jobs=1, device="cpu")
    options = FusionOptions(probabilities=True, morphology=True, all_features=True, settings=settings)
    records = []
    runs, folders = [run_folder, cbam], [str(cells)]
    more = {"features": tmp_path / "kept", "on_record": records.append}
    result = fuse_runs(runs, folders, tmp_path / "x", options, **more)
    for name in ("model.ubj", "weights.safetensors", "importance.json", "history.jsonl"):
        assert (tmp_path / "x" / name).read_bytes() == (fused / name).read_bytes(), name
    assert records == list(result.predictions())
    assert (result.failed, result.reused, result.classes) == (0, False, tuple(model_of(fused)["classes"]))
    computed = compute_features(runs, folders, tmp_path / "y", options, **more)
    done = cli("xgboost-fuse", *runs, cells, "-o", tmp_path / "z", "--features-only", "--probabilities", "--morphology")
    assert done.code == 0, done.err
    assert computed.file.read_bytes() == (tmp_path / "z" / "features.npz").read_bytes()
    assert (computed.images, sum(computed.families.values())) == (len(done.records), computed_width(computed.file))
    assert capsys.readouterr().out == ""


def computed_width(file):
    with np.load(file) as arrays:
        return arrays["features"].shape[1]


def test_a_damaged_image_is_named_and_left_out(cli, run_folder, cells, fused, tmp_path):
    shutil.copytree(cells, tmp_path / "cells")
    bad = next(r for r in read_records(tmp_path / "cells" / "records.jsonl") if r.get("split") == "train")
    (tmp_path / "cells" / bad["path"]).write_bytes(b"no image")
    done = cli("xgboost-fuse", tmp_path / "cells", "-o", tmp_path / "x", "--morphology", *FAST)
    assert done.code == 4, done.err
    assert f"failed: {tmp_path / 'cells' / bad['path']}" in done.err
    assert json.loads((tmp_path / "x" / "run.json").read_text())["failures"]
    skipped = cli("xgboost-fuse", tmp_path / "cells", "-o", tmp_path / "y", "--morphology", *FAST, "--skip-bad")
    assert skipped.code == 0
    only = cli("xgboost-fuse", tmp_path / "cells", "-o", tmp_path / "z", "--morphology", "--features-only", "--jobs", 1)
    assert only.code == 4
    good = [row for row in only.records if row["schema"] != "wbctool.error/1"]
    assert [row["row"] for row in good] == list(range(len(only.records) - 1))
    with np.load(tmp_path / "z" / "features.npz", allow_pickle=False) as arrays:
        assert list(arrays["ids"]) == [row["id"] for row in good]
    counts = json.loads((tmp_path / "z" / "run.json").read_text())["counts"]
    assert counts == {"inputs": len(only.records), "records": len(good), "failed": 1}


def test_training_images_of_a_network_are_not_tested(cli, run_folder, cells, tmp_path):
    other = cli("split", cells, "--ratio", "1/1/1", "--seed", 5, "-q").records
    file = write_records(tmp_path / "other.jsonl", other)
    done = cli("xgboost-fuse", run_folder, file, "-o", tmp_path / "x", *FAST)
    assert done.code == 3
    assert "were among the train images of" in done.err
    assert not (tmp_path / "x").exists()
    bare = [{key: value for key, value in row.items() if key != "split"} for row in other]
    done = cli("xgboost-fuse", run_folder, write_records(tmp_path / "bare.jsonl", bare), "-o", tmp_path / "y", *FAST)
    assert done.code == 0, done.err
    assert "no splits in the records: those of" in done.err
    mine = {row["id"]: row["split"] for row in read_records(run_folder / "dataset.jsonl")}
    assert {row["id"]: row["split"] for row in read_records(tmp_path / "y" / "dataset.jsonl")} == mine


def test_a_cell_without_a_mask(cli, cells, fused, tmp_path):
    records = cli("split", cells, "--ratio", "1/1/1", "-q").records
    bare = [{key: value for key, value in row.items() if key not in ("mask", "group")} for row in records]
    some = [one if number % 4 else other for number, (one, other) in enumerate(zip(records, bare, strict=True))]
    done = cli("predict", fused, write_records(tmp_path / "some.jsonl", some), "-q")
    assert done.code == 4
    failed = [row for row in done.records if row["schema"] == "wbctool.error/1"]
    assert len(failed) == len(some[::4])
    assert "carries no mask, and this run measures cells" in failed[0]["error"]
    none = write_records(tmp_path / "none.jsonl", bare)
    done = cli("xgboost-fuse", none, "-o", tmp_path / "x", "--morphology", *FAST)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "no record carries a mask" in done.err
    done = cli("xgboost-fuse", tmp_path / "some.jsonl", "-o", tmp_path / "y", "--morphology", *FAST)
    assert done.code == 0, done.err
    assert "carry no mask" in done.err
    done = cli("predict", tmp_path / "y", none, "-q")
    assert done.code == 0, done.err
    assert all(row["missing"] == ["morphology"] for row in done.records)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model.ubj", lambda raw: raw[:-9] + b"123456789", "model.ubj: is not what model.json was written with"),
        ("weights.safetensors", lambda raw: raw[:-1] + b"\1", "weights.safetensors: is not what"),
        ("model.json", lambda raw: raw.replace(b'"cell.area"', b'"cell.areas"'), "model.json: damaged (feature"),
        ("model.json", lambda raw: raw.replace(b'"checksums"', b'"sums"'), "no checksums"),
        ("model.ubj", None, "model.ubj: "),
    ],
)
def test_files_other_than_those_saved_are_refused(cli, fused, cells, tmp_path, file, change, message):
    shutil.copytree(fused, tmp_path / "f", ignore=shutil.ignore_patterns("features"))
    path = tmp_path / "f" / file
    path.unlink() if change is None else path.write_bytes(change(path.read_bytes()))
    done = cli("predict", tmp_path / "f", cells, "-q")
    assert (done.code, done.out) == (3, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_trees_of_other_features_are_refused(cli, fused, cells, tmp_path):
    from wbctool.modeling.run_folder import digest_of

    shutil.copytree(fused, tmp_path / "f", ignore=shutil.ignore_patterns("features"))
    booster = xgboost.Booster(model_file=tmp_path / "f" / "model.ubj")
    booster.feature_names = booster.feature_names[::-1]
    booster.save_model(tmp_path / "f" / "model.ubj")
    model = model_of(tmp_path / "f")
    model["checksums"]["model.ubj"] = digest_of(tmp_path / "f", "model.ubj")
    (tmp_path / "f" / "model.json").write_text(json.dumps(model))
    done = cli("predict", tmp_path / "f", cells, "-q")
    assert done.code == 3
    assert "model.ubj: cannot be used (feature 0 is" in done.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("{cells}", "-o", "{out}"), 2, "nothing to fuse: give a run folder before the images, or --morphology"),
        (("{run}", "-o", "{out}"), 2, "give images after the run folders"),
        (("{run}", "{cells}", "-o", "{run}"), 2, "nothing is lost"),
        (("{run}", "{cells}", "-o", "{cells}", "--features-only", "--overwrite"), 2, "holds the input"),
        (("{run}", "{cells}", "-o", "{out}", "--start", "none", "--all-features"), 2, "leave --all-features out"),
        (("{cells}", "-o", "{out}", "--morphology", "--probabilities"), 2, "--probabilities: are those of runs"),
        (("{run}", "{cells}", "-o", "{out}", "--features-only", "--tune", 3), 2, "grows no trees"),
        (("{fused}", "{cells}", "-o", "{out}", "--features-only"), 3, "is fused already"),
        (("{run}", "{cells}", "-o", "{out}", "--features", "{cells}/records.jsonl"), 3, "is a file; give a folder"),
        (("{run}", "{cells}", "-o", "{out}", "--start", "x"), 2, "--start x: choose from runs, none"),
        (("{run}", "{cells}", "-o", "{out}", "--set", "depth=3"), 2, "--set depth: XGBoost knows no such"),
        (("{run}", "{cells}", "-o", "{out}", "--class-weights", "x"), 2, "--class-weights x"),
        (("{fused}", "{cells}", "-o", "{out}"), 3, "is fused already"),
        (
            ("{run}", "{cells}", "-o", "{out}", "--classes", "band,eosinophil", "-q"),
            3,
            "trees cannot start from its answer",
        ),
        (("{run}", "{out}", "-o", "{out}"), 3, "no such file"),
    ],
)
def test_usage_errors_are_one_line(cli, fused, run_folder, cells, tmp_path, words, code, message):
    paths = {"cells": cells, "run": run_folder, "fused": fused, "out": tmp_path / "x"}
    done = cli("xgboost-fuse", *[str(word).format(**paths) for word in words])
    assert (done.code, done.out) == (code, ""), done.err
    assert message in done.err
    assert done.err.count("\n") == 1, done.err
    assert not (tmp_path / "x").exists()


def test_fused_runs_are_not_explained_or_exported(cli, fused, cells, tmp_path):
    done = cli("explain", fused, cells, "-o", tmp_path / "x")
    assert done.code == 2
    assert "is fused by trees" in done.err
    done = cli("info", fused, "--onnx", tmp_path / "x.onnx")
    assert done.code == 2
    assert "is fused by trees" in done.err
    assert not list(tmp_path.iterdir())


def test_a_search_is_kept(cli, fused, cells, tmp_path):
    bare = [{k: v for k, v in row.items() if k not in ("group", "split")} for row in cli("split", cells, "-q").records]
    file = write_records(tmp_path / "cells.jsonl", bare)
    more = ("--morphology", "--tune", 3, "--features", fused / "features", "--rounds", 6, "--jobs", 1, "-q")
    done = cli("xgboost-fuse", file, "-o", tmp_path / "x", *more)
    assert done.code == 0, done.err
    trials = read_records(tmp_path / "x" / "tuning.jsonl")
    assert [trial["trial"] for trial in trials] == [1, 2, 3]


def test_killed_while_features_are_computed_it_ends_in_the_same_bytes(fused, cells, run_folder, cbam, tmp_path):
    more = ("--morphology", "--probabilities", "--all-features", *FAST)
    words = ("xgboost-fuse", run_folder, cbam, cells, "-o", tmp_path / "x", *more)
    process = subprocess.Popen([preloaded_wbctool(), *map(str, words)], stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((tmp_path / "x" / "features").glob("*.keys")):
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(0.3)  # the fork it spoke for dies, too
    assert not (tmp_path / "x" / "model.json").exists()
    done = in_shell(*words)
    assert done.code == 0, done.err
    for name in ("model.ubj", "weights.safetensors", "importance.json"):
        assert (tmp_path / "x" / name).read_bytes() == (fused / name).read_bytes(), name


@pytest.mark.gpu
def test_on_a_gpu_it_is_fused_and_predicted(cli, cells, run_folder, tmp_path):
    more = ("--morphology", "--all-features", "--rounds", 15, "--jobs", 1, "--device", "cuda", "-q")
    done = cli("xgboost-fuse", run_folder, cells, "-o", tmp_path / "x", *more)
    assert done.code == 0, done.err
    for device in ("cuda", "cpu"):
        predicted = {row["id"]: row for row in cli("predict", tmp_path / "x", cells, "--device", device, "-q").records}
        for row in done.records:
            assert predicted[row["id"]]["probabilities"] == pytest.approx(row["probabilities"], abs=0.05)
