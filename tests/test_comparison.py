"""Several runs: paired tests, ranks, tables in every format."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats

from wbctool.statistics.comparison import holm, mcnemar, ranks


def predictions(path, correct, classes=("A", "B"), run="r", first=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as stream:
        for number, is_correct in enumerate(correct):
            label = classes[number % 2]
            predicted = label if is_correct else classes[1 - number % 2]
            probabilities = {name: 0.8 if name == predicted else 0.2 for name in classes}
            record = {"schema": "wbctool.prediction/1", "id": f"i{first + number}", "path": f"/x/{first + number}.png"}
            record |= {"run": run, "label": label, "predicted": predicted, "confidence": 0.8}
            record["probabilities"] = probabilities
            stream.write(json.dumps(record) + "\n")
    return path


def test_mcnemar_is_the_binomial_test_of_its_source():
    # McNemar's own kind of table: 5 and 15 discordant pairs
    assert mcnemar(5, 15) == pytest.approx(stats.binomtest(5, 20).pvalue, abs=1e-12)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(7, 7) == 1.0


def test_holm_corrects_as_published():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, np.nan, 0.4])[0] == pytest.approx(0.8)


def test_equal_values_share_a_rank():
    assert ranks([0.9, 0.8, 0.9, float("nan")]) == [1, 3, 1, 4]
    assert ranks([0.1, 0.2], lower_is_better=True) == [1, 2]


@pytest.fixture
def two(tmp_path):
    rng = np.random.default_rng(0)
    good = rng.random(200) < 0.95
    poor = good & (rng.random(200) < 0.85)
    predictions(tmp_path / "good" / "predictions.jsonl", good)
    predictions(tmp_path / "poor" / "predictions.jsonl", poor)
    return tmp_path, good, poor


def test_runs_are_tested_against_the_baseline(cli, two):
    folder, good, poor = two
    done = cli("evaluate", folder / "good", folder / "poor", "--baseline", folder / "poor", "--json")
    assert done.code == 0, done.err
    first, second = (json.loads(line) for line in done.out.splitlines())
    test = first["comparison"]["against"]
    assert test["run"] == str(folder / "poor")
    assert test["accuracy"]["difference"] == pytest.approx(good.mean() - poor.mean(), abs=1e-12)
    assert 0 < test["accuracy"]["interval"][0] < test["accuracy"]["difference"] < test["accuracy"]["interval"][1]
    assert test["p"] == pytest.approx(stats.binomtest(0, int((good & ~poor).sum())).pvalue, abs=1e-12)
    assert (first["comparison"]["rank"], second["comparison"]["rank"]) == (1, 2)
    assert "against" not in second["comparison"]


def test_the_table_fits_80_columns_and_names_the_test(cli, two):
    folder, *_ = two
    done = cli("evaluate", folder / "good", folder / "poor")
    assert done.code == 0, done.err
    assert all(len(line) <= 80 for line in done.out.splitlines())
    assert "McNemar" in done.out
    assert "macro averages" in done.out
    slashes = cli("evaluate", f"{folder}/good/", f"{folder}/poor", "--baseline", f"{folder}/good/")
    assert slashes.out == done.out


def test_figures_with_deviations_leave_room_for_names(cli, tmp_path):
    """Means and deviations of four figures, a difference and a rank are more than 80 columns."""
    for run in ("cbam-focal", "resnet50"):
        for number in (1, 2):
            correct = np.arange(20) < 10 + 2 * number + len(run) % 3
            predictions(tmp_path / run / f"repeat-{number}" / "predictions.jsonl", correct)
    runs = [tmp_path / run / f"repeat-{number}" for run in ("cbam-focal", "resnet50") for number in (1, 2)]
    done = cli("evaluate", *runs)
    assert done.code == 0, done.err
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert str(tmp_path)[:40] in done.out
    assert "run acc. F1 AUC MCC difference p rank" in lines
    assert any(line.startswith("resnet50 0.750 ") for line in lines), done.out
    assert any(line.startswith("±0.071 ") for line in lines), done.out


def test_folds_are_joined(cli, tmp_path):
    of_folds = [np.arange(20) < count for count in (20, 18, 16)]
    for number, correct in enumerate(of_folds, 1):
        predictions(tmp_path / "cv" / f"fold-{number}" / "predictions.jsonl", correct, first=100 * number)
    predictions(tmp_path / "other" / "predictions.jsonl", of_folds[2])
    folds = [tmp_path / "cv" / f"fold-{number}" for number in (1, 2, 3)]
    done = cli("evaluate", *folds, tmp_path / "other", "--format", "csv")
    assert done.code == 0, done.err
    rows = {row["run"]: row for row in csv.DictReader(io.StringIO(done.out))}
    joined = rows[str(tmp_path / "cv")]
    assert float(joined["accuracy"]) == pytest.approx(0.9)
    assert float(joined["accuracy_sd"]) == pytest.approx(0.1)
    assert (joined["runs"], joined["images"], joined["rank"]) == ("3", "60", "1")
    assert "0.900 ± 0.100" in cli("evaluate", *folds, tmp_path / "other").out
    alone = [json.loads(line)["comparison"] for line in cli("evaluate", *folds, "--json").out.splitlines()]
    assert [(row["run"], row["rank"], row["accuracy"]) for row in alone] == [
        (str(fold), rank, accuracy) for fold, rank, accuracy in zip(folds, (1, 2, 3), (1.0, 0.9, 0.8), strict=True)
    ]
    shown = cli("evaluate", *folds).out
    assert "3 runs, all predictions" in shown
    assert all(name in shown for name in ("fold-1", "fold-3", "0.900 ± 0.100"))


def test_tables_for_papers(cli, two):
    folder, good, _ = two
    markdown = cli("evaluate", folder / "good", folder / "poor", "--format", "markdown").out
    assert f"**{good.mean():.4f}**" in markdown
    assert all(line.startswith("| ") and line.endswith(" |") for line in markdown.splitlines())
    latex = cli("evaluate", folder / "good", folder / "poor", "--format", "latex").out
    assert f"\\textbf{{{good.mean():.4f}}}" in latex
    assert latex.count("\\\\") == 3
    one = cli("evaluate", folder / "good", "--format", "csv").out
    rows = {row["figure"]: row for row in csv.DictReader(io.StringIO(one))}
    assert float(rows["accuracy"]["value"]) == pytest.approx(good.mean(), abs=1e-6)
    assert float(rows["accuracy"]["low"]) < good.mean() < float(rows["accuracy"]["high"])


def test_runs_on_other_images_are_not_compared(cli, two, tmp_path):
    folder, good, _ = two
    other = predictions(tmp_path / "other" / "predictions.jsonl", good[:50], first=1000).parent
    beside = cli("evaluate", folder / "good", other)
    assert beside.code == 0, beside.err
    assert "McNemar" not in beside.out
    done = cli("evaluate", folder / "good", other, "--baseline", other)
    assert done.code == 3
    assert "different images (0 in common of 200 and 50)" in done.err
    assert cli("evaluate", folder / "good", other, "--baseline", "nothing").code == 2
    assert cli("evaluate", folder / "good", "--format", "html").code == 2


def test_columns_choose_the_metrics_of_tables(cli, two):
    folder, *_ = two
    words = ("evaluate", folder / "good", folder / "poor", "--columns", "kappa,log_loss")
    header = next(line for line in cli(*words).out.splitlines() if line.startswith(" run "))
    assert header.split() == ["run", "Cohen's", "kappa", "log", "loss", "difference", "p", "rank"]
    markdown = cli(*words, "--format", "markdown").out.splitlines()
    assert markdown[0].startswith("| run | Cohen's kappa | log loss | difference |")
    assert markdown[2].count("**") == 4  # the first run is better in both, although a low log loss is the good one
    spreadsheet = cli(*words, "--format", "csv").out.splitlines()[0]
    assert spreadsheet.startswith("run,runs,images,rank,kappa,kappa_sd,log_loss,log_loss_sd,against,")
    alone = cli("evaluate", folder / "good", "--columns", "kappa", "--format", "csv").out
    assert [line.partition(",")[0] for line in alone.splitlines()] == ["figure", "Cohen's kappa"]
    unknown = cli("evaluate", folder / "good", "--columns", "kappa,f2")
    assert (unknown.code, unknown.out) == (2, "")
    assert "--columns f2" in unknown.err
    assert "choose from accuracy, " in unknown.err


def test_runs_in_one_stream_are_separated(cli, tmp_path):
    one = predictions(tmp_path / "a.jsonl", np.ones(10, bool), run="runs/a").read_text()
    two = predictions(tmp_path / "b.jsonl", np.arange(10) < 5, run="runs/b").read_text()
    done = cli("evaluate", "-", "--json", stdin=one + two)
    assert done.code == 0, done.err
    accuracies = {report["run"]: report["accuracy"] for report in map(json.loads, done.out.splitlines())}
    assert accuracies == {"runs/a": 1.0, "runs/b": 0.5}
