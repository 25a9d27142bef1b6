"""Temperature, reliability, coverage and thresholds."""

import json

import numpy as np
import pytest
from test_evaluate import lines, prediction

from wbctool.statistics import calibration
from wbctool.statistics.counts import Scores, values_of


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def drawn(count, factor, seed=0):
    """Labels of known probabilities, and those of a network whose logits are `factor` times the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 5)) * 2
    truth = np.array([rng.choice(5, p=row) for row in softmax(logits)])
    return truth, softmax(logits * factor)


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_the_temperature_of_a_network_is_recovered(factor):
    assert calibration.fit_temperature(*drawn(20_000, factor)) == pytest.approx(factor, rel=0.05)


def test_a_few_correct_images_do_not_make_it_certain():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    assert 0.2 < calibration.fit_temperature(np.array([0, 0, 1]), probabilities) < 1
    assert calibration.fit_temperature(np.array([], np.int64), np.empty((0, 2))) == 1.0


def test_scaling_divides_logits_and_can_be_undone():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(50, 4)) * 3
    probabilities = softmax(logits)
    temperatures = rng.uniform(0.5, 3, 50)
    scaled = calibration.scaled(probabilities, temperatures)
    np.testing.assert_allclose(scaled, softmax(logits / temperatures[:, None]), atol=1e-12)
    np.testing.assert_allclose(calibration.scaled(scaled, 1 / temperatures), probabilities, atol=1e-12)
    assert (scaled.argmax(axis=1) == probabilities.argmax(axis=1)).all()


def test_the_reliability_table_adds_up_to_the_calibration_error():
    truth, probabilities = drawn(3000, 2.0, 2)
    scores = Scores(truth, probabilities.argmax(axis=1), probabilities)
    rows = calibration.reliability(scores.confidence, scores.correct)
    assert sum(row["n"] for row in rows) == 3000
    from_rows = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / 3000
    assert from_rows == pytest.approx(values_of(scores)["calibration_error"], abs=1e-12)


def test_thresholds_and_coverage_are_those_of_a_plain_search():
    rng = np.random.default_rng(3)
    confidence = rng.integers(1, 40, 300) / 40  # with ties
    correct = rng.random(300) < confidence
    for target in (0.0, 0.05, 0.2, 0.5, 1.0):
        good = [t for t in np.unique(confidence) if (~correct[confidence >= t]).mean() <= target]
        assert calibration.threshold_for(confidence, correct, target) == (min(good) if good else None)
    for row in calibration.coverage_table(confidence, correct):
        kept = confidence >= row["threshold"]
        assert row["coverage"] == pytest.approx(kept.mean())
        assert row["error"] == pytest.approx((~correct[kept]).mean())


def scored(number, label, predicted, confidence, **more):
    other = "B" if predicted == "A" else "A"
    probabilities = {predicted: confidence, other: round(1 - confidence, 6)}
    return {**prediction(number, label, predicted), "confidence": confidence, "probabilities": probabilities, **more}


def test_the_report_undoes_the_temperature(cli):
    rows = [scored(i, "A", "A" if i % 4 else "B", 0.8, temperature=2.0) for i in range(40)]
    report = json.loads(cli("evaluate", "-", "--json", stdin=lines(*rows)).out)
    assert report["temperature"] == 2.0
    before = 0.8**2 / (0.8**2 + 0.2**2)
    bins = {"above": 14 / 15, "to": 1.0}, {"above": 11 / 15, "to": 12 / 15}
    assert report["before"]["reliability"] == [
        {**bins[0], "n": 40, "confidence": pytest.approx(before), "accuracy": 0.75}
    ]
    assert report["reliability"] == [{**bins[1], "n": 40, "confidence": pytest.approx(0.8), "accuracy": 0.75}]
    assert report["before"]["calibration_error"] == pytest.approx(before - 0.75)
    done = cli("evaluate", "-", stdin=lines(*rows))
    assert "temperature 2" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_a_threshold_sets_uncertain_predictions_apart(cli):
    rows = [scored(i, "A", "A", 0.9) for i in range(6)] + [scored(i, "B", "A", 0.6) for i in range(6, 10)]
    report = json.loads(cli("evaluate", "-", "--threshold", 0.7, "--json", stdin=lines(*rows)).out)["threshold"]
    assert (report["value"], report["chosen_on"], report["uncertain"]) == (0.7, "given", 4)
    assert report["classes"] == {"A": {"support": 6, "uncertain": 0}, "B": {"support": 4, "uncertain": 4}}
    assert (report["rest"]["n"], report["rest"]["accuracy"]) == (6, 1.0)


def test_a_target_error_is_sought_on_validation_and_reported_on_test(cli):
    val = [scored(f"v{i}", "A", "A" if i >= 2 else "B", 0.6 + 0.03 * i, split="val") for i in range(10)]
    test = [scored(f"t{i}", "A", "A" if i != 5 else "B", 0.6 + 0.03 * i, split="test") for i in range(10)]
    done = cli("evaluate", "-", "--target-error", 0, "--json", stdin=lines(*val, *test))
    threshold = json.loads(done.out)["threshold"]
    assert threshold["chosen_on"] == "validation"
    assert threshold["value"] == pytest.approx(0.66)
    assert (threshold["rest"]["n"], threshold["rest"]["accuracy"]) == (8, 7 / 8)
    alone = json.loads(cli("evaluate", "-", "--target-error", 0, "--json", stdin=lines(*test)).out)["threshold"]
    assert alone["chosen_on"] == "test"


def test_unreachable_targets_and_invalid_options_are_refused(cli):
    incorrect = lines(*(scored(i, "A", "B", 0.9) for i in range(4)))
    done = cli("evaluate", "-", "--target-error", 0.1, stdin=incorrect)
    assert (done.code, done.out) == (3, "")
    assert "no threshold reaches it" in done.err
    assert cli("evaluate", "-", "--target-error", 0.1, "--threshold", 0.5, stdin=incorrect).code == 2
    zero = lines({**scored(0, "A", "A", 0.9), "temperature": 0})
    assert "temperature" in cli("evaluate", "-", stdin=zero).err


def test_train_fits_a_temperature_on_validation_and_predict_uses_it(cli, run_folder, cells, tmp_path):
    info = json.loads((run_folder / "model.json").read_text())["calibration"]
    rows = [json.loads(line) for line in (run_folder / "predictions.jsonl").read_text().splitlines()]
    assert {row["temperature"] for row in rows} == {info["temperature"]}
    val = [row for row in rows if row["split"] == "val"]
    assert info["images"] == len(val)
    names = sorted(val[0]["probabilities"])
    truth = np.array([names.index(row["label"]) for row in val])
    scaled = np.array([[row["probabilities"][name] for name in names] for row in val])
    before = calibration.scaled(scaled, 1 / info["temperature"])
    assert calibration.fit_temperature(truth, before) == pytest.approx(info["temperature"], rel=0.01)
    test = {row["id"]: row for row in rows if row["split"] == "test"}
    for row in cli("predict", run_folder, cells, "-q").records:
        if row["id"] in test:
            assert row["temperature"] == info["temperature"]
            assert row["probabilities"] == pytest.approx(test[row["id"]]["probabilities"], abs=2e-3)


def test_an_invalid_temperature_is_refused(cli, run_folder, cells, tmp_path):
    import shutil

    damaged = tmp_path / "run"
    shutil.copytree(run_folder, damaged)
    model = json.loads((damaged / "model.json").read_text())
    model["calibration"]["temperature"] = -1
    (damaged / "model.json").write_text(json.dumps(model))
    done = cli("predict", damaged, cells)
    assert (done.code, done.out) == (3, "")
    assert "model.json: damaged (temperature -1" in done.err
