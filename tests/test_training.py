"""The run folder, resuming, stopping; what is refused; `train_run` from Python."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, contents
from safetensors.torch import load_file

from wbctool.errors import InputError
from wbctool.inputs.dataset import gather
from wbctool.training.images import ImageStore


def test_images_are_decoded_once_and_read_in_the_order_of_the_indices(tmp_path, cells):
    paths = sorted(str(p) for p in cells.glob("*/*.png") if "masks" not in str(p))[:5]
    first = ImageStore(paths, 48, tmp_path / "p.npy", quiet=True)
    from wbctool.imaging.files import read_image

    batch = first.batch(np.array([3, 0, 4]))
    for row, index in zip(batch, (3, 0, 4), strict=True):
        assert np.array_equal(row.permute(1, 2, 0), read_image(paths[index]))
    before = [p.stat().st_mtime_ns for p in tmp_path.iterdir()]
    ImageStore(paths, 48, tmp_path / "p.npy", quiet=True)
    assert [p.stat().st_mtime_ns for p in tmp_path.iterdir()] == before


def image(number, label, **more):
    return {"schema": "wbctool.image/1", "id": str(number), "path": f"/x/{number}", "label": label, **more}


def test_without_splits_a_stratified_grouped_80_20_is_made():
    records = [image(i, "AB"[i % 2], group=str(i // 2)) for i in range(100)]
    dataset = gather(records, seed=0, quiet=True)
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 80, "val": 20, "test": 0}
    groups = {k: {r["group"] for r in v} for k, v in dataset.splits.items()}
    assert not groups["train"] & groups["val"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no labelled image"),
        ([image(1, None)], "no labelled image"),
        ([image(1, "A", split="train"), image(2, "A", split="train")], "only A"),
        ([image(1, "A", split="train"), image(2, "B")], "1 of 2 records have no split"),
        ([image(i, "AB"[i % 2], split="train") for i in range(4)] + [image(9, "C", split="val")], "class C"),
        (
            [image(i, "AB"[i % 2], split="train", group="g") for i in range(4)]
            + [image(9, "A", split="test", group="g")],
            "group g is in both",
        ),
    ],
)
def test_records_that_cannot_be_trained_on_are_refused(records, message):
    with pytest.raises(InputError, match=message):
        gather(records, seed=0, quiet=True)


def test_a_run_folder_holds_what_the_contract_says(run_folder):
    names = {path.name for path in run_folder.iterdir()}
    assert names == {
        "model.json", "weights.safetensors", "predictions.jsonl", "dataset.jsonl", "history.jsonl",
        "curves.png", "run.json",
    }  # fmt: skip
    info = json.loads((run_folder / "model.json").read_text())
    assert info["preparation"]["crop"] == {"method": "roi", "margin": 0.3, "size": 48}
    assert info["preparation"]["segment"] == {"method": "unet"}
    rows = [json.loads(line) for line in (run_folder / "predictions.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"val", "test"}
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(row["probabilities"], key=row["probabilities"].get)
        assert (run_folder / row["path"]).resolve().exists()
    history = [json.loads(line) for line in (run_folder / "history.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["phase"]) for row in history] == [(1, "frozen"), (2, "fine-tune")]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(cli, cells, run_folder, tmp_path):
    done = cli("train", cells, "-o", tmp_path / "b", *TINY, "--epochs", 2, "--frozen-epochs", 1, "-q")
    assert done.code == 0, done.err
    first, second = contents(run_folder), contents(tmp_path / "b")
    assert first["weights.safetensors"] == second["weights.safetensors"]
    assert first["curves.png"] == second["curves.png"]
    other = cli("train", cells, "-o", tmp_path / "c", *TINY, "--epochs", 2, "--frozen-epochs", 1, "-q", "--seed", 1)
    assert other.code == 0
    assert contents(tmp_path / "c")["weights.safetensors"] != first["weights.safetensors"]


@pytest.mark.parametrize("after", [1, 3])
def test_training_killed_after_an_epoch_ends_with_the_same_weights(cli, cells, tmp_path, monkeypatch, after):
    options = (*TINY, "--epochs", 4, "-q", "--frozen-epochs", 2)
    assert cli("train", cells, "-o", tmp_path / "whole", *options).code == 0
    from wbctool.training import loop
    from wbctool.training.loop import Trainer

    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    save = Trainer._save

    def dies(self, *arguments):
        save(self, *arguments)
        if self.state.epoch == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", dies)
        assert cli("train", cells, "-o", tmp_path / "killed", *options).code == 130
    assert (tmp_path / "killed" / "resume" / "state.pt").exists()
    early = cli("predict", tmp_path / "killed", cells)
    assert early.code == 3
    assert "has not finished" in early.err
    assert cli("train", cells, "-o", tmp_path / "killed", *options).code == 0
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert not (tmp_path / "killed" / "resume").exists()


def test_a_finished_run_is_not_trained_again_and_other_settings_are_refused(cli, cells, run_folder, tmp_path):
    copy = tmp_path / "a"
    shutil.copytree(run_folder, copy)
    (copy / "resume").mkdir()  # as where it was killed after its last step
    (copy / "resume" / "state.pt").write_bytes(b"old")
    before = (copy / "weights.safetensors").stat().st_mtime_ns
    again = cli("train", cells, "-o", copy, *TINY, "--epochs", 2, "--frozen-epochs", 1)
    assert again.code == 0
    assert "was trained before" in again.err
    assert not (copy / "resume").exists()
    assert (copy / "weights.safetensors").stat().st_mtime_ns == before
    other = cli("train", cells, "-o", copy, *TINY, "--epochs", 3, "--frozen-epochs", 1)
    assert other.code == 2
    assert "made with epochs 2, not with epochs 3" in other.err


def test_zero_epochs_save_the_untrained_model(cli, cells, tmp_path):
    done = cli("train", cells, "-o", tmp_path / "r", *TINY, "--epochs", 0, "--seed", 4, "-q")
    assert done.code == 0, done.err
    from wbctool.modeling.architecture import Architecture
    from wbctool.modeling.classifier import Classifier

    info = json.loads((tmp_path / "r" / "model.json").read_text())
    torch.manual_seed(4)
    fresh = Classifier(Architecture.from_json(info)).state_dict()
    saved = load_file(tmp_path / "r" / "weights.safetensors")
    assert all(torch.equal(saved[key], fresh[key]) for key in saved)


def test_a_loss_that_is_not_finite_stops_with_the_next_step(cli, cells, tmp_path):
    done = cli("train", cells, "-o", tmp_path / "r", *TINY, "--lr", "1e8", "--epochs", 3, "--frozen-epochs", 0, "-q")
    assert done.code == 3
    assert "lower --lr" in done.err


def test_early_stopping_keeps_the_best_epoch(cli, cells, tmp_path):
    done = cli("train", cells, "-o", tmp_path / "r", *TINY, "--lr", "1e-9", "--epochs", 12, "--patience", 2, "-q",
               "--frozen-epochs", 0)  # fmt: skip
    assert done.code == 0, done.err
    history = [json.loads(line) for line in (tmp_path / "r" / "history.jsonl").read_text().splitlines()]
    best = json.loads((tmp_path / "r" / "model.json").read_text())["best_epoch"]
    assert len(history) < 12
    assert len(history) == best + 2


def test_an_image_that_cannot_be_read_is_named(cli, cells, tmp_path):
    lines = []
    for number, line in enumerate((cells / "records.jsonl").read_text().splitlines()):
        record = json.loads(line)
        record["path"] = str(cells / record["path"]) if number else str(tmp_path / "gone.png")
        lines.append(json.dumps(record))
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    done = cli("train", tmp_path / "r.jsonl", "-o", tmp_path / "run", *TINY, "--epochs", 1, "-q")
    assert done.code == 4
    assert "gone.png" in done.err
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(run["failures"]) == 1
    assert sum(run["counts"].values()) == 47
    assert (
        cli("train", tmp_path / "r.jsonl", "-o", tmp_path / "run", *TINY, "--epochs", 1, "-q", "--skip-bad").code == 0
    )


def test_images_that_changed_are_noticed(cli, cells, tmp_path):
    copy = tmp_path / "cells"
    shutil.copytree(cells, copy)
    shutil.copytree(cells / "masks", copy / "masks", dirs_exist_ok=True)
    options = (*TINY, "--epochs", 0, "-q")
    assert cli("train", copy, "-o", tmp_path / "r", *options).code == 0
    shutil.copy(next((copy / "band").iterdir()), next((copy / "monocyte").iterdir()))
    done = cli("train", copy, "-o", tmp_path / "r", *options)
    assert done.code == 2
    assert "images, labels or splits have changed" in done.err
    wrong = cli("train", copy, "-o", tmp_path / "s", *options, "--weights", tmp_path / "none.pth")
    assert wrong.code == 3
    assert cli("train", copy, "-o", tmp_path / "s", *options).code == 0  # a first slip does not spoil the folder
