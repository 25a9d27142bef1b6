"""Several processes train as a single one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import in_shell

RECORDER = Path(__file__).with_name("record_steps.py")
OPTIONS = (
    *("--backbone", "custom-cnn", "--weights", "none", "--size", 48, "--batch-size", 8, "--device", "cpu"),
    *("--epochs", 3, "--frozen-epochs", 0, "--dropout", 0, "--precision", "float32", "--augment", "strong"),
    *("--class-weights", "balanced", "--lr", "3e-4"),
)


def train(processes, folder, *words):
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*launcher, str(RECORDER), str(folder / "steps"), "train", *map(str, words), "-o", str(folder / "run")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


@pytest.mark.slow
def test_two_processes_take_the_same_samples_and_have_the_same_loss_at_each_step(cells, tmp_path):
    steps = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        done = train(processes, folder, cells, *OPTIONS)
        assert done.returncode == 0, done.stderr
        rows = [[json.loads(line) for line in open(f"{folder}/steps.{rank}")] for rank in range(processes)]
        steps[processes] = [
            (sorted(s for row in step for s in row["samples"]), sum(row["loss"] for row in step) / step[0]["weight"])
            for step in zip(*rows, strict=True)
        ]
        assert len(done.stdout.splitlines()) == 32  # predictions of val and test, once
    assert len(steps[1]) == len(steps[2]) == 6
    for (samples, loss), (samples_of_two, loss_of_two) in zip(steps[1], steps[2], strict=True):
        assert samples == samples_of_two
        assert abs(loss - loss_of_two) < 1e-4
    history = [[json.loads(line) for line in open(tmp_path / n / "run" / "history.jsonl")] for n in "12"]
    for one, two in zip(*history, strict=True):
        assert abs(one["train_loss"] - two["train_loss"]) < 1e-4
        assert abs(one["val_loss"] - two["val_loss"]) < 1e-3
        assert one["train_accuracy"] == pytest.approx(two["train_accuracy"], abs=0.05)


@pytest.mark.slow
def test_two_processes_divide_the_frozen_phase_and_their_run_predicts_in_one(cells, tmp_path):
    options = ("--backbone", "resnet10t", "--weights", "none", "--size", 48, "--batch-size", 8, "--device", "cpu")
    done = train(2, tmp_path, cells, *options, "--epochs", 2, "--attention", "cbam", "--ema", 0.9)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.replace("UserWarning", "")
    again = in_shell("predict", tmp_path / "run", cells, "-q")
    assert again.code == 0, again.err
    assert len(again.records) == 48
