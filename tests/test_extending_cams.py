"""A new class-activation method is one module: the rest of `explain` finds it by its declaration."""

import json
import sys

import numpy as np
import pytest

from wbctool.errors import UsageProblem
from wbctool.explaining import METHODS, methods

MODULE = '''
"""Max-CAM, the example of CONTRIBUTING.md."""

from wbctool.explaining.method import CamMethod

MAXCAM = CamMethod(
    name="maxcam",
    help="Highest activation at each position, for any class.",
    maps=lambda context: context.activations.amax(1),
    depends_on_class=False,
)
'''


@pytest.fixture
def maxcam(tmp_path, monkeypatch):
    """The method, declared in a folder that belongs to the package as long as the test runs."""
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "maxcam.py").write_text(MODULE)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    made = ("explaining.methods.maxcam", "explaining.options", "commands.explain")  # help is made on import
    made = tuple(f"wbctool.{name}" for name in made)
    for name in made:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in made:
        sys.modules.pop(name, None)


def test_a_declared_method_is_in_help_and_completion(cli, maxcam, monkeypatch):
    assert "maxcam" in METHODS.names()
    assert "maxcam" in cli("explain", "--help").out
    monkeypatch.setenv("_WBCTOOL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "wbctool explain run cells --method max")
    monkeypatch.setenv("COMP_CWORD", "5")
    assert cli().out.split() == ["maxcam"]


def test_a_declared_method_is_run_and_reported(cli, maxcam, run_folder, cells, tmp_path, monkeypatch):
    words = ("explain", run_folder, cells, "-o", tmp_path / "x", "--method", "maxcam", "--maps")
    done = cli(*words)
    assert done.code == 0, done.err
    for record in done.records:
        assert set(record["explain"]["methods"]) == {"maxcam"}
        with np.load(record["maps"]) as maps:
            assert maps["maxcam"].max() == pytest.approx(1, abs=1e-4)
    scores = json.loads((tmp_path / "x" / "scores.json").read_text())
    assert [run["method"] for run in scores["runs"]] == ["maxcam"]
    monkeypatch.setattr("wbctool.console.records_wanted", lambda json: False)  # as on a terminal
    table = cli(*words)
    assert table.code == 0, table.err
    assert f"{run_folder}: maxcam" in table.out


def test_an_unknown_method_is_refused(cli, run_folder, cells, tmp_path):
    with pytest.raises(UsageProblem, match=r"--method maxcam: unknown .* choose from attention, eigencam"):
        METHODS.get("maxcam", "--method")
    done = cli("explain", run_folder, cells, "-o", tmp_path / "x", "--method", "maxcam")
    assert done.code == 2
    assert "--method maxcam: unknown" in done.err
    assert not (tmp_path / "x").exists()
