"""A loss is added by one module: help, completion, validation, training and run folder know it from there."""

import json
import os
import subprocess
import sys

import pytest
from conftest import TINY, Result, read_records

MODULE = '''"""Cross-entropy with a margin, the example of CONTRIBUTING.md."""

from wbctool.pipeline.parameters import Parameters, parameter
from wbctool.training.losses import LossMethod


class MarginParameters(Parameters):
    """The margin."""

    margin: float = parameter(0.5, "Lead of the true class.", low=0, high=5)


def margin_loss(logits, targets, objective, epoch):
    """Return cross-entropy with the logit of the true class lowered by the margin, shape (n,)."""
    from torch.nn import functional

    leads = objective.parameters.margin * functional.one_hot(targets, logits.shape[1])
    return functional.cross_entropy(logits - leads, targets, reduction="none")


MARGIN = LossMethod("margin", "Cross-entropy with a margin.", "Wang et al. 2018", MarginParameters, margin_loss)
'''

START = """import sys
import wbctool.training.losses
wbctool.training.losses.__path__.append(sys.argv.pop(1))
from wbctool.cli import main
main()
"""


@pytest.fixture(scope="module")
def wbctool(tmp_path_factory):
    """Run `wbctool` with a further module among its losses."""
    folder = tmp_path_factory.mktemp("losses")
    (folder / "margin.py").write_text(MODULE)

    def run(*words, **env):
        command = [sys.executable, "-c", START, str(folder), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
        return Result(done.returncode, done.stdout, done.stderr)

    return run


def test_help_and_recipe_show_the_loss_and_its_parameter(wbctool):
    done = wbctool("train", "--help", COLUMNS="140")
    (line,) = (line for line in done.out.splitlines() if "│ --loss " in line)
    assert "margin" in line
    (line,) = (line for line in done.out.splitlines() if "--margin" in line)
    assert "margin: Lead of the true class. (0.5)" in line
    shown = wbctool("train", "--weights", "none", "--show").out
    assert "margin = 0.5  # margin: Lead of the true class." in shown


def test_completion_offers_the_loss_and_its_parameter(wbctool):
    def complete(words):
        env = {"_WBCTOOL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return wbctool(**env).out.split()

    assert complete("wbctool train --loss m") == ["margin"]
    assert complete("wbctool train --marg") == ["--margin"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--loss", "margn"), "--loss margn: choose from ce, ce-then-focal, focal, margin"),
        (("--loss", "margin", "--margin", 6), "--margin 6.0: give a number from 0 to 5"),
        (("--set", "margin=-1"), "--margin -1: give a number from 0 to 5"),
    ],
)
def test_the_loss_and_its_parameter_are_validated(wbctool, cells, tmp_path, words, message):
    done = wbctool("train", cells, "-o", tmp_path / "run", *TINY, *words)
    assert (done.code, message in done.err) == (2, True), done.err
    assert not (tmp_path / "run").exists()


def test_a_run_is_trained_with_the_loss_and_records_it(wbctool, cells, tmp_path):
    losses = {}
    for margin in (0, 4):
        run = tmp_path / str(margin)
        words = ("--epochs", 1, "--frozen-epochs", 0, "--loss", "margin", "--margin", margin, "-q")
        done = wbctool("train", cells, "-o", run, *TINY, *words)
        assert done.code == 0, done.err
        training = json.loads((run / "model.json").read_text())["training"]
        assert (training["loss"], training["margin"]) == ("margin", margin)
        losses[margin] = read_records(run / "history.jsonl")[0]["val_loss"]
    assert losses[4] > losses[0] + 3
