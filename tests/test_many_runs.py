"""Probes, ensembles, cross-validation, repeats, and recipes, on the command line and from Python."""

import json
import shutil

import numpy as np
import pytest
import tomllib
import torch
from conftest import TINY, contents, in_shell
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from wbctool.modeling import run_folder
from wbctool.statistics.calibration import scaled

ONE = (*TINY, "--epochs", 1, "--frozen-epochs", 0)


def vectors(run, records, base):
    from wbctool.imaging.inputs import to_input

    size = run.model.architecture.size
    images = torch.from_numpy(np.stack([to_input(str(base / r["path"]), size) for r in records])).permute(0, 3, 1, 2)
    with torch.no_grad():
        return run.model.vector(run.model.features(images)).numpy()


@pytest.mark.parametrize(("probe", "precision"), [("linear", "float32"), ("knn", "float32"), ("knn", "bf16")])
def test_a_probe_is_what_scikit_learn_makes_of_the_same_features(cli, cells, tmp_path, probe, precision):
    out = tmp_path / "r"
    done = cli("train", cells, "-o", out, *TINY, "--probe", probe, "--precision", precision, "-q", "--symmetries", 1)
    assert done.code == 0, done.err
    assert not (out / "curves.png").exists()
    again = cli("train", cells, "-o", out, "--resume", "--probe", probe)
    assert "was trained before" in again.err
    run = run_folder.load(out, torch.device("cpu"))
    records = [json.loads(line) for line in open(cells / "records.jsonl")]
    train, test = ([r for r in records if r["split"] == split] for split in ("train", "test"))
    train_vectors, test_vectors = vectors(run, train, cells), vectors(run, test, cells)
    labels = [run.classes.index(r["label"]) for r in train]
    if probe == "linear":
        mean, std = train_vectors.mean(0), train_vectors.std(0, ddof=1).clip(1e-6)
        strength = json.loads((out / "run.json").read_text())["strength"]
        fitted = LogisticRegression(C=strength, max_iter=1000).fit((train_vectors - mean) / std, labels)
        expected = fitted.predict_proba((test_vectors - mean) / std)
    else:
        fitted = KNeighborsClassifier(min(20, len(labels)), metric="cosine", weights=lambda d: np.exp(-d / 0.07)).fit(
            train_vectors, labels
        )
        expected = fitted.predict_proba(test_vectors)
    rows = {r["id"]: r for r in map(json.loads, open(out / "predictions.jsonl"))}
    predicted = np.array([[rows[r["id"]]["probabilities"][name] for name in run.classes] for r in test])
    expected = scaled(np.clip(expected, 1e-30, None), run.temperature)
    assert np.abs(predicted - expected).max() < (2e-3 if precision == "float32" else 0.2)
    assert not (out / "resume").exists()


def test_a_probe_of_two_classes_works(cli, cells, tmp_path):
    done = cli("train", cells, "-o", tmp_path / "r", *TINY, "--probe", "linear", "-q", "--classes", "band,monocyte")
    assert done.code == 0, done.err
    assert len(done.records[0]["probabilities"]) == 2


@pytest.fixture(scope="module")
def members(cells, tmp_path_factory):
    place = tmp_path_factory.mktemp("members")
    done = in_shell("train", cells, "-o", place / "a", *ONE, "-q")
    assert done.code == 0, done.err
    other = ("--backbone", "mobilenetv3_small_050", "--size", 64, "--mean", 0.5)
    done = in_shell("train", cells, "-o", place / "b", *ONE, *other, "-q", "--seed", 1)
    assert done.code == 0, done.err
    return place


def test_an_average_ensemble_is_the_mean_of_its_members_and_stands_alone(cli, cells, members, tmp_path):
    a = members / "a"
    shutil.copytree(a, tmp_path / "a")
    shutil.copytree(a, tmp_path / "c")
    done = cli("train", tmp_path / "a", members / "b", cells, "-o", tmp_path / "e", "--ensemble", "average", "-q")
    assert done.code == 0, done.err
    one, two = (cli("predict", run, cells, "-q").records for run in (tmp_path / "a", members / "b"))
    shutil.rmtree(tmp_path / "a")
    both = cli("predict", tmp_path / "e", cells, "-q")
    assert both.code == 0, both.err
    for x, y, mean in zip(one, two, both.records, strict=True):
        for name, probability in mean["probabilities"].items():
            expected = (x["probabilities"][name] + y["probabilities"][name]) / 2
            assert probability == pytest.approx(expected, abs=0.02)  # its smaller member has its images scaled twice
    info = json.loads((tmp_path / "e" / "model.json").read_text())
    assert info["backbone"] == "resnet10t+mobilenetv3_small_050"
    parameters = [json.loads((run / "model.json").read_text())["parameters"] for run in (a, members / "b")]
    assert info["parameters"] == sum(parameters)
    shown = cli("info", tmp_path / "e", "--json")
    assert json.loads(shown.out)["ensemble"] == "average"


def test_a_cbam_ensemble_learns_over_its_members_maps_and_leaves_them_as_they_are(cli, cells, members, tmp_path):
    words = ("--ensemble", "cbam", "--dense", 16, "--epochs", 4, "--batch-size", 8, "-q")
    done = cli("train", members / "a", members / "b", cells, "-o", tmp_path / "e", *words)
    assert done.code == 0, done.err
    history = [json.loads(line) for line in open(tmp_path / "e" / "history.jsonl")]
    assert [row["phase"] for row in history] == ["frozen"] * 4
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    run = run_folder.load(tmp_path / "e", torch.device("cpu"))
    original = run_folder.load(members / "b", torch.device("cpu")).model.state_dict()
    copied = run.model.members[1].state_dict()
    assert all(torch.equal(original[key], copied[key]) for key in original)
    images = torch.rand(2, 3, 64, 64) * 255
    maps = run.model.frozen_features(images)
    assert maps.shape == (2, 512 + 288, 2, 2)
    assert cli("predict", tmp_path / "e", cells, "-q").code == 0


def test_train_run_does_what_the_command_does(cells, tmp_path, capsys):
    from wbctool.records.selection import Selection
    from wbctool.training import TrainingOptions, TrainingPlan, choose_recipe, train_run

    values = {"backbone": "resnet10t", "weights": "none", "size": 48, "batch_size": 8, "epochs": 1}
    means = {
        "recipe": choose_recipe(values=values),
        "plan": TrainingPlan(repeats=2),
        "selection": Selection(group_regex="(.+)"),
        "options": TrainingOptions(device="cpu", quiet=True),
    }
    trained = []
    runs = train_run([cells], tmp_path / "r", **means, on_run=trained.append)
    assert runs == trained
    assert [run.path.name for run in runs] == ["repeat-1", "repeat-2"]
    for run in runs:
        assert sum(run.images.values()) == 48
        assert len(run.class_names) == 8
        assert (run.failures, run.done_before) == ([], False)
        correct = [r["predicted"] == r["label"] for r in run.predictions() if r["split"] == "test"]
        assert run.accuracy()["test"] == sum(correct) / len(correct)
        assert len(correct) == run.images["test"]
    again = train_run([cells], tmp_path / "r", **means)
    assert all(run.done_before for run in again)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("A", "CELLS", "--ensemble", "average"), "two run folders or more"),
        (("A", "B", "CELLS"), "is a run folder; --ensemble"),
        (("A", "B", "--ensemble", "average"), "is a run folder; give images, too"),
        (("A", "B", "CELLS", "--ensemble", "sum"), "choose from average, cbam"),
        (("A", "B", "CELLS", "--ensemble", "cbam", "--probe", "knn"), "do not go together"),
        (("A", "B", "CELLS", "--ensemble", "cbam", "--classes", "band,monocyte"), "must be the same classes"),
        (("CELLS", "--probe", "svm"), "choose from linear, knn"),
        (("CELLS", "--folds", "2"), "from 3"),
        (("CELLS", "--folds", "3", "--repeats", "2"), "do not go together"),
        (("CELLS", "--ratio", "70/30"), "goes with --repeats"),
        (("CELLS", "--unfreeze", "last:9999"), "layers"),
        (("CELLS", "--set", "wings=2"), "no such key"),
        (("CELLS", "--alpha", "x=1", "--loss", "focal"), "no class x"),
    ],
)
def test_choices_that_exclude_each_other_are_refused(cli, cells, members, tmp_path, words, message):
    paths = {"A": members / "a", "B": members / "b", "CELLS": cells}
    done = cli("train", *(paths.get(word, word) for word in words), "-o", tmp_path / "r", *ONE, "-q")
    assert done.code in (2, 3)
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "r" / "model.json").exists()


def test_folds_test_every_image_once_and_keep_groups_whole(cli, cells, tmp_path):
    done = cli("train", cells, "-o", tmp_path / "cv", *ONE, "--folds", 3, "-q")
    assert done.code == 0, done.err
    tested, groups = [], []
    for fold in (1, 2, 3):
        rows = [json.loads(line) for line in open(tmp_path / "cv" / f"fold-{fold}" / "predictions.jsonl")]
        tested += [row["id"] for row in rows if row["split"] == "test"]
        groups.append({row["group"] for row in rows if row["split"] == "test"})
    assert sorted(tested) == sorted(json.loads(line)["id"] for line in open(cells / "records.jsonl"))
    assert not groups[0] & groups[1] | groups[1] & groups[2]
    assert len(done.records) == 48 * 2
    report = in_shell("evaluate", *(tmp_path / "cv" / f"fold-{n}" for n in (1, 2, 3)))
    assert report.code == 0, report.err
    assert "fold-3" in report.out
    again = cli("train", cells, "-o", tmp_path / "cv", "--resume", "--folds", 3)
    assert again.code == 0, again.err
    assert again.err.count("was trained before") == 3


def test_repeats_have_new_splits_and_seeds(cli, cells, tmp_path):
    done = cli(
        "train", cells, "-o", tmp_path / "r", *ONE, "--repeats", 2, "--ratio", "60/20/20", "-q", "--group-regex", "(.+)"
    )
    assert done.code == 0, done.err
    tested = []
    for number in (1, 2):
        run = tmp_path / "r" / f"repeat-{number}"
        assert json.loads((run / "run.json").read_text())["settings"]["seed"] == number - 1
        rows = [json.loads(line) for line in open(run / "predictions.jsonl")]
        tested.append({row["id"] for row in rows if row["split"] == "test"})
        assert {row["split"] for row in rows} == {"val", "test"}
    assert tested[0] != tested[1]


def test_show_prints_a_recipe_that_can_be_given_again(cli, cells, tmp_path):
    shown = cli("train", "--recipe", "best", "--show", "--epochs", 7, "--set", "rotation=5")
    assert shown.code == 0, shown.err
    table = tomllib.loads(shown.out)
    assert (table["epochs"], table["rotation"]) == (7, 5.0)
    assert shown.out.startswith("# ")
    (tmp_path / "mine.toml").write_text(shown.out)
    again = cli("train", "--recipe", tmp_path / "mine.toml", "--show")
    assert again.out == shown.out
    done = cli("train", cells, "-o", tmp_path / "r", "--recipe", tmp_path / "mine.toml", *ONE, "-q")
    assert done.code == 0, done.err
    settings = json.loads((tmp_path / "r" / "run.json").read_text())["settings"]
    assert settings["rotation"] == 5.0
    assert settings["epochs"] == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), {"size": 288, "side_heads": "covariance", "unfreeze": "last:70%", "lr": 1e-3, "best_by": "last"}),
        (("--backbone", "resnet26t"), {"size": 288, "lr": 1e-3}),
        (("--backbone", "vit_small_patch14_dinov2"), {"size": 224, "lr": 1e-4, "lr_depth": 0.1, "unfreeze": "all"}),
        (("--backbone", "convnext_tiny", "--recipe", "best"), {"size": 224, "lr": 1e-4}),
        (("--weights", "none"), {"size": 224, "side_heads": "none", "batch_statistics": "learn", "lr": 1e-3}),
        (("--backbone", "custom-cnn"), {"weights": "none", "side_heads": "none", "unfreeze": "all"}),
        (("--patience", 3), {"patience": 3, "best_by": "balanced_accuracy"}),
        (("--patience", 3, "--set", "best_by=loss"), {"best_by": "loss"}),
    ],
)
def test_best_has_a_variant_for_each_kind_of_network(cli, flags, expected):
    shown = cli("train", "--show", *flags)
    assert shown.code == 0, shown.err
    table = tomllib.loads(shown.out)
    assert {key: table[key] for key in expected} == expected


def test_tensorboard_and_compile_change_nothing(cli, cells, tmp_path):
    assert cli("train", cells, "-o", tmp_path / "a", *ONE, "-q").code == 0
    done = cli("train", cells, "-o", tmp_path / "b", *ONE, "-q", "--tensorboard", "--cache-gb", 0)
    assert done.code == 0, done.err
    one, two = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert one["weights.safetensors"] == two["weights.safetensors"]
    assert any("tensorboard/events" in name for name in two)


def test_a_class_of_one_image_and_a_validation_set_without_a_class_are_warned_of(cli, cells, tmp_path):
    lines = [json.loads(line) for line in open(cells / "records.jsonl")]
    few = [r for r in lines if r["label"] != "monocyte"]
    one = next(r for r in lines if r["label"] == "monocyte" and r["split"] == "train")
    with open(tmp_path / "r.jsonl", "w") as stream:
        for record in [*few, one]:
            stream.write(json.dumps({**record, "path": str(cells / record["path"])}) + "\n")
    words = ("--class-weights", "effective", "--sampling", "balanced", "--loss", "ce-then-focal", "--ce-epochs", 1)
    done = cli("train", tmp_path / "r.jsonl", "-o", tmp_path / "run", *TINY, "--epochs", 2, *words)
    assert done.code == 0, done.err
    assert "no validation image of class monocyte" in done.err
    assert "class monocyte has one training image" in done.err
