"""Every figure equals scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as sk

from wbctool.statistics import metrics

CASES = {
    "random": (300, [0.25] * 4, 0.3),
    "imbalanced": (300, [0.9, 0.06, 0.03, 0.01], 0.6),
    "small": (7, [0.25] * 4, 0.5),
    "perfect": (50, [0.25] * 4, 1.0),
    "missing class": (200, [0.5, 0.0, 0.25, 0.25], 0.5),
    "one class": (40, [1.0, 0, 0, 0], 0.5),
}


def draw(name, seed):
    count, share, skill = CASES[name]
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, count, p=share)
    scores = rng.dirichlet(np.ones(4), count)
    scores[np.arange(count), truth] += skill * rng.uniform(0, 2, count) + (10 if skill == 1 else 0)
    scores = np.round(scores / scores.sum(axis=1, keepdims=True), 2)  # ties on purpose
    return truth, scores.argmax(axis=1), scores


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_figures_equal_those_of_scikit_learn(name, seed):
    truth, predicted, scores = draw(name, seed)
    found = metrics.summary(truth, predicted, scores)
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
        assert found[key] == pytest.approx(value, abs=1e-9, nan_ok=True), key
    met = np.unique(truth)
    assert found["macro_average_precision"] == pytest.approx(
        np.mean([sk.average_precision_score(truth == c, scores[:, c]) for c in met]), abs=1e-9
    )
    if len(met) > 1:
        areas = [sk.roc_auc_score(truth == c, scores[:, c]) for c in met]
        assert found["macro_auc"] == pytest.approx(np.mean(areas), abs=1e-9)
    else:
        assert np.isnan(found["macro_auc"])


def test_the_calibration_error_is_that_of_its_definition():
    truth, predicted, scores = draw("random", 3)
    confidence = scores[np.arange(len(truth)), predicted]
    total = 0.0
    for low in range(15):
        own = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if own.any():
            total += own.mean() * abs((predicted == truth)[own].mean() - confidence[own].mean())
    assert metrics.summary(truth, predicted, scores)["calibration_error"] == pytest.approx(total, abs=1e-12)


def test_macro_auc_equals_scikit_learns_multiclass_figure():
    truth, predicted, scores = draw("random", 1)
    scores /= scores.sum(axis=1, keepdims=True)
    expected = sk.roc_auc_score(truth, scores, multi_class="ovr")
    assert metrics.summary(truth, predicted, scores)["macro_auc"] == pytest.approx(expected, abs=1e-12)


def test_per_class_figures_and_specificity():
    truth, predicted, _ = draw("imbalanced", 0)
    confusion = metrics.confusion_matrix(truth, predicted, 4)
    assert np.array_equal(confusion, sk.confusion_matrix(truth, predicted, labels=range(4)))
    each = metrics.per_class(confusion)
    p, r, f, s = sk.precision_recall_fscore_support(truth, predicted, labels=range(4), zero_division=0)
    for key, value in zip(("precision", "recall", "f1", "support"), (p, r, f, s), strict=True):
        assert np.allclose(each[key], value, atol=1e-12)
    parts = sk.multilabel_confusion_matrix(truth, predicted, labels=range(4))
    assert np.allclose(each["specificity"], parts[:, 0, 0] / parts[:, 0].sum(axis=1), atol=1e-12)


def test_the_undefined_is_said_to_be_so():
    one = metrics.figures_of(np.array([[5, 0], [0, 0]]))
    assert one["mcc"] == 0.0
    assert np.isnan(one["kappa"])
    hits, alarms, _ = metrics.steps(np.ones(3, bool), np.arange(3.0))
    assert np.isnan(metrics.areas(hits, alarms)[0])


def test_figures_of_many_draws_are_those_of_each():
    drawn = np.random.default_rng(0).integers(0, 9, (5, 3, 3))
    together = metrics.figures_of(drawn)
    for number, confusion in enumerate(drawn):
        for name, value in metrics.figures_of(confusion).items():
            assert together[name][number] == pytest.approx(float(value), abs=1e-12), name
