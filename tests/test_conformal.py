"""Prediction sets: their limits, their coverage on new images, and what commands make of them."""

import json

import numpy as np
import pytest
from conftest import read_records

from wbctool.statistics.conformal import PredictionSets

CLASSES = ("A", "B", "C")


def draw(rng, count, sharpness=3.0):
    """Labels, and probabilities (count, 3) that favour them."""
    truth = rng.integers(0, 3, count)
    logits = rng.normal(0, 1, (count, 3))
    logits[np.arange(count), truth] += rng.normal(sharpness, 1.5, count) - truth  # C is hard
    return truth, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_truth_as_often_as_asked_in_every_class(coverage):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(60):
        sets = PredictionSets.fit(CLASSES, *draw(rng, 300), coverage)
        truth, probabilities = draw(rng, 300)
        held = np.array(
            [
                CLASSES[t] in sets.of(dict(zip(CLASSES, p, strict=True)))
                for t, p in zip(truth, probabilities, strict=True)
            ]
        )
        covered.append([held[truth == number].mean() for number in range(3)])
    means = np.mean(covered, axis=0)
    assert (means > coverage - 0.01).all()
    assert means.min() < coverage + 0.03  # the hard class has sets no larger than they must be


def test_the_limit_is_that_of_the_textbook():
    scores = np.arange(1, 20) / 20  # 19 images: at 0.95 all have to be held, at 0.9 the least may be missed
    probabilities = np.stack([scores, 1 - scores], axis=1)
    truth = np.zeros(19, int)
    assert PredictionSets.fit(("A", "B"), truth, probabilities, 0.95).least == {"A": 0.05, "B": 0.05}
    assert PredictionSets.fit(("A", "B"), truth, probabilities, 0.9).least == {"A": 0.1, "B": 0.1}
    with pytest.raises(ValueError, match="19"):
        PredictionSets.fit(("A", "B"), truth[1:], probabilities[1:], 0.95)


def test_a_class_with_few_images_takes_the_limit_of_all():
    rng = np.random.default_rng(1)
    truth, probabilities = draw(rng, 200)
    few = np.concatenate([np.flatnonzero(truth != 2), np.flatnonzero(truth == 2)[:5]])
    sets = PredictionSets.fit(CLASSES, truth[few], probabilities[few], 0.9)
    scores = np.sort(probabilities[few, truth[few]])
    assert sets.least["C"] == scores[len(few) - int(np.ceil((len(few) + 1) * 0.9))]
    assert sets.least["A"] != sets.least["C"]


def test_predict_adds_sets_and_evaluate_measures_them(cli, run_folder, cells, tmp_path):
    out = tmp_path / "p.jsonl"
    done = cli("predict", run_folder, cells, "--coverage", 0.6, "-o", out)
    assert done.code == 0, done.err
    records = read_records(out)
    for record in records:
        assert record["prediction_set"][0] == record["predicted"]
        assert record["coverage"] == 0.6
    report = json.loads(cli("evaluate", out, "--split", "all", "--json").out)["prediction_sets"]
    held = [record["label"] in record["prediction_set"] for record in records]
    assert report["covered"] == pytest.approx(np.mean(held))
    assert report["mean_size"] == pytest.approx(np.mean([len(record["prediction_set"]) for record in records]))
    assert sum(report["sizes"].values()) == len(records)
    assert "prediction sets" in cli("evaluate", out, "--split", "all").out.lower()
    again = cli("predict", run_folder, cells, "-o", out)  # the predictions are used again, the sets are not
    assert again.code == 0
    assert not any("prediction_set" in record for record in read_records(out))


def test_what_prediction_sets_need_is_said(cli, run_folder, cells, tmp_path):
    refused = cli("predict", run_folder, cells, "--coverage", 0.99)
    assert (refused.code, refused.out) == (2, "")
    assert "validation" in refused.err
    assert cli("predict", run_folder, cells, "--coverage", 1.5).code == 2
