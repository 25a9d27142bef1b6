"""Every metric equals scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as sk

from wbctool.statistics.counts import (
    CLASS_METRICS,
    ConfusionCounts,
    Scores,
    confusion_matrix,
    curve_areas,
    threshold_steps,
    values_of,
)
from wbctool.statistics.metrics import metrics_of

CASES = {
    "random": (300, [0.25] * 4, 0.3),
    "imbalanced": (300, [0.9, 0.06, 0.03, 0.01], 0.6),
    "small": (7, [0.25] * 4, 0.5),
    "perfect": (50, [0.25] * 4, 1.0),
    "missing class": (200, [0.5, 0.0, 0.25, 0.25], 0.5),
    "one class": (40, [1.0, 0, 0, 0], 0.5),
}


def draw(name, seed):
    count, frequencies, skill = CASES[name]
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, count, p=frequencies)
    scores = rng.dirichlet(np.ones(4), count)
    scores[np.arange(count), truth] += skill * rng.uniform(0, 2, count) + (10 if skill == 1 else 0)
    scores = np.round(scores / scores.sum(axis=1, keepdims=True), 2)  # ties on purpose
    return truth, scores.argmax(axis=1), scores


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_metrics_equal_those_of_scikit_learn(name, seed):
    truth, predicted, scores = draw(name, seed)
    values = values_of(Scores(truth, predicted, scores))
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "mcc": sk.matthews_corrcoef(truth, predicted),
        "kappa": sk.cohen_kappa_score(truth, predicted),
        "log_loss": sk.log_loss(truth, scores, labels=range(4)),
    }
    for average in ("macro", "weighted"):
        p, r, f, _ = sk.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
        expected |= {f"{average}_precision": p, f"{average}_recall": r, f"{average}_f1": f}
    for key, value in expected.items():
        assert values[key] == pytest.approx(value, abs=1e-9, nan_ok=True), key
    occurring = np.unique(truth)
    assert values["macro_average_precision"] == pytest.approx(
        np.mean([sk.average_precision_score(truth == c, scores[:, c]) for c in occurring]), abs=1e-9
    )
    if len(occurring) > 1:
        areas = [sk.roc_auc_score(truth == c, scores[:, c]) for c in occurring]
        assert values["macro_auc"] == pytest.approx(np.mean(areas), abs=1e-9)
    else:
        assert np.isnan(values["macro_auc"])


def test_the_calibration_error_is_that_of_its_definition():
    truth, predicted, scores = draw("random", 3)
    confidence = scores[np.arange(len(truth)), predicted]
    total = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            total += inside.mean() * abs((predicted == truth)[inside].mean() - confidence[inside].mean())
    assert values_of(Scores(truth, predicted, scores))["calibration_error"] == pytest.approx(total, abs=1e-12)


def test_macro_auc_equals_scikit_learns_multiclass_metric():
    truth, predicted, scores = draw("random", 1)
    scores /= scores.sum(axis=1, keepdims=True)
    expected = sk.roc_auc_score(truth, scores, multi_class="ovr")
    assert values_of(Scores(truth, predicted, scores))["macro_auc"] == pytest.approx(expected, abs=1e-12)


def test_class_metrics_and_specificity():
    truth, predicted, _ = draw("imbalanced", 0)
    confusion = confusion_matrix(truth, predicted, 4)
    assert np.array_equal(confusion, sk.confusion_matrix(truth, predicted, labels=range(4)))
    counts = ConfusionCounts(confusion)
    p, r, f, s = sk.precision_recall_fscore_support(truth, predicted, labels=range(4), zero_division=0)
    for key, value in zip(("precision", "recall", "f1"), (p, r, f), strict=True):
        assert np.allclose(counts.per_class[key], value, atol=1e-12)
    assert np.array_equal(counts.support, s)
    tables = sk.multilabel_confusion_matrix(truth, predicted, labels=range(4))
    assert np.allclose(counts.per_class["specificity"], tables[:, 0, 0] / tables[:, 0].sum(axis=1), atol=1e-12)


def values_of_confusion(confusion):
    counts = ConfusionCounts(np.asarray(confusion))
    return {metric.name: metric.compute(counts) for metric in metrics_of("confusion")}


def test_undefined_metrics_are_nan():
    one = values_of_confusion([[5, 0], [0, 0]])
    assert one["mcc"] == 0.0
    assert np.isnan(one["kappa"])
    assert np.isnan(curve_areas(*threshold_steps(np.ones(3, bool), np.arange(3.0))[:2])[0])
    counts = ConfusionCounts(np.array([[5, 0], [0, 0]]))
    for name in CLASS_METRICS:
        undefined = np.isnan(counts.defined_per_class[name])
        assert undefined.tolist() == [name == "specificity", name != "specificity"]
        assert (counts.per_class[name][undefined] == 0).all()


def test_metrics_of_many_draws_are_those_of_each():
    drawn = np.random.default_rng(0).integers(0, 9, (5, 3, 3))
    together = values_of_confusion(drawn)
    for number, confusion in enumerate(drawn):
        for name, value in values_of_confusion(confusion).items():
            assert together[name][number] == pytest.approx(float(value), abs=1e-12), name


@pytest.mark.parametrize("name", CASES)
def test_values_lie_in_the_declared_range(name):
    values = values_of(Scores(*draw(name, 0)))
    for metric in metrics_of():
        low, high = metric.range
        assert np.isnan(values[metric.name]) or low <= values[metric.name] <= high, metric.name
        assert metric.help.endswith(".")
