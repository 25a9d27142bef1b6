"""Intervals: their coverage, their groups, their edges."""

import numpy as np
import pytest
from scipy import stats

from wbctool.statistics import intervals
from wbctool.statistics.counts import Scores, values_of


def proportion(correct, groups=None):
    truth = np.zeros(len(correct), np.int64)
    draws = intervals.Draws(np.arange(len(correct)) if groups is None else groups)
    return intervals.confusion_intervals(draws, truth, np.where(correct, 0, 1), 2)[0]["accuracy"]


def test_the_interval_of_a_fraction_is_near_wilsons():
    correct = np.arange(400) < 340
    expected = stats.binomtest(340, 400).proportion_ci(method="wilson")
    assert proportion(correct) == pytest.approx((expected.low, expected.high), abs=0.006)


def test_where_all_are_correct_it_is_wilsons():
    expected = stats.binomtest(60, 60).proportion_ci(method="wilson")
    assert proportion(np.ones(60, bool)) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_rare_class_has_the_interval_of_its_few_images():
    truth = np.repeat([0, 1], [5, 25])
    draws = intervals.Draws(np.arange(30))
    _, each = intervals.confusion_intervals(draws, truth, truth, 2)
    for name, few in (("recall", 5), ("specificity", 25), ("precision", 5), ("f1", 5)):
        expected = stats.binomtest(few, few).proportion_ci(method="wilson")
        assert each[name][0] == pytest.approx((expected.low, 1.0), abs=1e-9), name


def test_metrics_that_may_be_negative_are_not_cut_off_at_zero():
    truth = np.repeat([0, 1], 20)
    main, _ = intervals.confusion_intervals(intervals.Draws(np.arange(40)), truth, np.zeros(40, np.int64), 2)
    for name in ("mcc", "kappa"):
        low, high = main[name]
        assert low == -high < 0


def test_copies_of_one_image_count_as_one():
    rng = np.random.default_rng(0)
    correct = rng.random(100) < 0.8
    alone = proportion(correct)
    copied = proportion(np.repeat(correct, 20), np.repeat(np.arange(100), 20))
    assert copied == pytest.approx(alone, abs=1e-9)
    blind = proportion(np.repeat(correct, 20))
    assert blind[1] - blind[0] < 0.3 * (copied[1] - copied[0])


@pytest.mark.slow
@pytest.mark.parametrize("groups", [0, 60])
@pytest.mark.parametrize("images", [300, 1000])
def test_intervals_cover_the_truth_as_often_as_they_claim(images, groups):
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
    from coverage import simulate

    coverage = simulate(images, groups, 0.85, 250)[:3]  # accuracy, macro F1, MCC
    assert all(91.5 <= percent <= 98.5 for percent in coverage), coverage


def test_intervals_of_areas_are_those_of_a_plain_bootstrap():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 200)
    scores = rng.dirichlet(np.ones(3), 200)
    scores[np.arange(200), truth] += rng.uniform(0, 1, 200)
    scores /= scores.sum(axis=1, keepdims=True)
    whole = Scores(truth, scores.argmax(axis=1), scores)
    values = values_of(whole)
    computed, _ = intervals.score_intervals(intervals.Draws(np.arange(200)), whole, values)
    again = np.random.default_rng(0)
    samples = []
    for _ in range(300):
        rows = again.integers(0, 200, 200)
        samples.append(values_of(Scores(truth[rows], whole.predicted[rows], scores[rows])))
    assert set(computed) == {"macro_auc", "macro_average_precision", "log_loss", "calibration_error"}
    for name, interval in computed.items():
        low, high = np.quantile([sample[name] for sample in samples], [0.025, 0.975])
        assert interval[0] < values[name] < interval[1]
        assert interval[1] - interval[0] == pytest.approx(high - low, rel=0.35), name


def test_one_group_has_no_interval():
    assert all(np.isnan(end) for end in proportion(np.arange(10) < 5, np.zeros(10, np.int64)))
