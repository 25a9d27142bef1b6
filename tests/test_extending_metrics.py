"""A metric in one file is found in help, completion, validation, JSON and reports."""

import json
import os
import subprocess
import sys

import pytest
from test_evaluate import lines, prediction

DUMMIES = {
    "dummy_hits": """
from wbctool.statistics.metrics import Metric

HITS = Metric(
    name="dummy_hits",
    title="dummy hits",
    help="Accuracy, once more.",
    compute=lambda counts: counts.ratio(counts.correct, counts.total),
)
""",
    "dummy_brier": """
from wbctool.statistics.metrics import Metric


def _brier(scores):
    import numpy as np

    return ((scores.probabilities - np.eye(scores.probabilities.shape[1])[scores.truth]) ** 2).sum(axis=1)


BRIER = Metric(
    name="dummy_brier",
    title="dummy Brier score",
    help="Squared distance of the probabilities to the truth.",
    range=(0.0, 2.0),
    higher_is_better=False,
    shown_in=("terminal", "axes"),
    source="Brier 1950",
    compute=_brier,
    basis="images",
)
""",
}
CODE = """
import sys
import wbctool.statistics.metrics
wbctool.statistics.metrics.__path__.append(sys.argv[1])
sys.argv = ["wbctool", *sys.argv[2:]]
from wbctool.cli import main
main()
"""


@pytest.fixture
def extended(tmp_path):
    """Runs wbctool with the dummy metrics, and without the process that other tests share."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    for name, text in DUMMIES.items():
        (folder / f"{name}.py").write_text(text)

    def run(*words, stdin="", **env):
        command = [sys.executable, "-c", CODE, folder, *map(str, words)]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, env={**os.environ, **env})

    return run


def write_runs(folder):
    files = []
    for name, errors in (("a", 2), ("b", 4)):
        labels = ["A" if i % 2 else "B" for i in range(20)]
        rows = [prediction(i, label, "A" if i < errors else label) for i, label in enumerate(labels)]
        files.append(folder / f"{name}.jsonl")
        files[-1].write_text(lines(*rows))
    return files


def test_help_and_completion_offer_it(extended):
    shown = " ".join(extended("evaluate", "--help", COLUMNS="200").stdout.split())
    assert all(name in shown for name in DUMMIES)
    for typed, offered in (("dummy", ["dummy_brier", "dummy_hits"]), ("mcc,dummy_h", ["mcc,dummy_hits"])):
        words = f"wbctool evaluate runs/a --columns {typed}"
        env = {"_WBCTOOL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "4"}
        assert extended(**env).stdout.split() == offered


def test_json_and_the_report_of_one_run_show_it(extended, tmp_path):
    file, _ = write_runs(tmp_path)
    page = tmp_path / "page.html"
    done = extended("evaluate", file, "--json", "--html", page)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report)[list(report).index("calibration_error") + 1 :][:2] == list(reversed(DUMMIES))
    assert report["dummy_hits"] == report["accuracy"]
    assert report["intervals"]["dummy_hits"] == report["intervals"]["accuracy"]
    assert report["dummy_brier"] == pytest.approx((19 * 2 * 0.25**2 + 2 * 0.75**2) / 20)
    low, high = report["intervals"]["dummy_brier"]
    assert low < report["dummy_brier"] < high
    terminal = extended("evaluate", file).stdout
    for title, name in (("dummy hits", "dummy_hits"), ("dummy Brier score", "dummy_brier")):
        assert title in terminal
        assert title in page.read_text()
        assert f"{report[name]:.4f}" in terminal


def test_tables_and_plots_of_several_runs_show_it(extended, tmp_path):
    files = write_runs(tmp_path)
    assert "dummy Brier score" in extended("evaluate", *files).stdout
    markdown = extended("evaluate", *files, "--columns", "dummy_hits,dummy_brier", "--format", "markdown").stdout
    assert markdown.startswith("| run | dummy hits | dummy Brier score |")
    assert markdown.splitlines()[2].count("**") == 4  # the first run is best in both: a low Brier score is the good one
    done = extended("evaluate", *files, "--plots", tmp_path / "plots", "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plots" / "parallel-coordinates.svg").exists()


def test_an_unknown_name_is_refused(extended, tmp_path):
    done = extended("evaluate", write_runs(tmp_path)[0], "--columns", "accuracy,dummy_misses")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--columns dummy_misses: unknown metric" in done.stderr
    assert "dummy_brier, dummy_hits" in done.stderr
