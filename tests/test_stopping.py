"""A training that is stopped at any step, or short of memory, ends with the same weights."""

import json
import os
import signal
import subprocess

import pytest
import torch
from conftest import TINY, preloaded_wbctool
from safetensors.torch import load_file

from wbctool.training.loop import Trainer

OPTIONS = (
    *(*TINY, "--epochs", 4, "--frozen-epochs", 2, "--set", "frozen_views=2", "--ema", "0.9", "--augment", "strong"),
    *("--dropout", 0.4, "--attention", "cbam", "--schedule", "plateau", "--batch-size", 4, "--patience", 0),
)


def weights(run):
    return load_file(run / "weights.safetensors")


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture(scope="module")
def undisturbed(cells, tmp_path_factory):
    from conftest import in_shell

    out = tmp_path_factory.mktemp("whole") / "r"
    done = in_shell("train", cells, "-o", out, *OPTIONS, "-q")
    assert done.code == 0, done.err
    return out


@pytest.mark.parametrize(
    ("number", "stops"),
    [
        *((signal.SIGINT, stops) for stops in ((0,), (3,), (5, 9, 10), (13,))),
        (signal.SIGTERM, (5, 9, 10)),
    ],
)
def test_stopped_at_any_step_and_resumed_the_weights_are_the_same(
    cli, cells, tmp_path, monkeypatch, undisturbed, stops, number
):
    out, taken = tmp_path / "r", []
    step = Trainer._step

    def stopped(self, *arguments):
        taken.append(None)
        if len(taken) - 1 in stops:
            os.kill(os.getpid(), number)
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "_step", stopped)
    code = 143 if number == signal.SIGTERM else 130
    for index in range(len(stops)):
        again = ("--resume",) if index % 2 else OPTIONS
        done = cli("train", cells, "-o", out, *again, "-q")
        assert done.code == code, done.err
        assert "run the same command again to go on" in done.err
        assert (out / "resume" / "state.pt").exists()
    done = cli("train", cells, "-o", out, "--resume", "-q")
    assert done.code == 0, done.err
    assert equal(weights(out), weights(undisturbed))
    total = len([json.loads(line) for line in open(out / "history.jsonl")])
    assert total == 4
    assert len(taken) == 4 * 4  # no step was taken twice


def test_killed_without_a_warning_it_goes_on_from_its_last_epoch(cells, tmp_path, undisturbed):
    out = tmp_path / "r"
    command = [preloaded_wbctool(), "train", str(cells), "-o", str(out), *map(str, OPTIONS)]
    for epoch in (1, 2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if line.startswith(f"wbctool: epoch {epoch}/4"):  # the state after the first is on the disk
                process.kill()
        process.wait()  # its streams are closed: the fork that it was the client of has died, too
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert equal(weights(out), weights(undisturbed))


def test_resume_needs_a_run_that_was_started(cli, cells, tmp_path):
    for words, message in (
        (("--resume",), "Missing option '--out' / '-o'"),
        (("--resume", "-o", tmp_path / "none"), "no training was started there"),
        (("--resume", "-o", tmp_path / "none", "--recipe", "best"), "leave --recipe"),
    ):
        done = cli("train", cells, *words)
        assert done.code in (2, 3)
        assert message in done.err


def limited(monkeypatch, most, error):
    """Let the model be out of memory with more than `most` images at once."""
    from wbctool.modeling.classifier import Classifier

    forward, sizes = Classifier.forward, []

    def limited_forward(self, inputs, frozen=False):
        if self.training and not frozen:
            sizes.append(len(inputs))
            if len(inputs) > most:
                raise error
        return forward(self, inputs, frozen)

    monkeypatch.setattr(Classifier, "forward", limited_forward)
    return sizes


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
     MemoryError()],
)  # fmt: skip
def test_where_memory_runs_out_smaller_parts_add_up_to_the_same_step(cli, cells, tmp_path, monkeypatch, error):
    options = ("--backbone", "custom-cnn", "--weights", "none", "--size", 48, "--batch-size", 16, "--dropout", 0,
               "--epochs", 2, "--frozen-epochs", 0, "--device", "cpu", "--precision", "float32",
               "--class-weights", "balanced")  # fmt: skip
    assert cli("train", cells, "-o", tmp_path / "whole", *options, "-q").code == 0
    sizes = limited(monkeypatch, 5, error)
    done = cli("train", cells, "-o", tmp_path / "cut", *options)
    assert done.code == 0, done.err
    assert "cut into 4 parts" in done.err
    assert sizes[:3] == [16, 8, 4]
    assert max(sizes[3:]) <= 4
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 2e-3


def test_where_memory_is_too_small_for_two_images_the_exit_code_is_5(cli, cells, tmp_path, monkeypatch):
    limited(monkeypatch, 1, torch.OutOfMemoryError("CUDA out of memory"))
    done = cli("train", cells, "-o", tmp_path / "r", *TINY, "--epochs", 1, "--frozen-epochs", 0)
    assert done.code == 5
    assert "smaller --batch-size, --size or backbone" in done.err
    assert "Traceback" not in done.err
