"""Every figure equals scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as sk

from wbctool.evaluation.metrics import auc, confusion_matrix, macro_auc, matthews, per_class, summary

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
    found = summary(truth, predicted, scores)
    same = {"zero_division": 0, "average": "macro"}
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "macro_precision": sk.precision_score(truth, predicted, **same),
        "macro_recall": sk.recall_score(truth, predicted, **same),
        "macro_f1": sk.f1_score(truth, predicted, **same),
        "mcc": sk.matthews_corrcoef(truth, predicted),
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-9), key
    areas = [sk.roc_auc_score(truth == c, scores[:, c]) for c in np.unique(truth) if len(np.unique(truth)) > 1]
    if areas:
        assert found["macro_auc"] == pytest.approx(np.mean(areas), abs=1e-9)
    else:
        assert np.isnan(found["macro_auc"])


def test_macro_auc_equals_scikit_learns_multiclass_figure():
    truth, _, scores = draw("random", 1)
    scores /= scores.sum(axis=1, keepdims=True)
    assert macro_auc(truth, scores) == pytest.approx(sk.roc_auc_score(truth, scores, multi_class="ovr"), abs=1e-12)


def test_per_class_figures_and_specificity():
    truth, predicted, _ = draw("imbalanced", 0)
    confusion = confusion_matrix(truth, predicted, 4)
    assert np.array_equal(confusion, sk.confusion_matrix(truth, predicted, labels=range(4)))
    each = per_class(confusion)
    p, r, f, s = sk.precision_recall_fscore_support(truth, predicted, labels=range(4), zero_division=0)
    for key, value in zip(("precision", "recall", "f1", "support"), (p, r, f, s), strict=True):
        assert np.allclose(each[key], value, atol=1e-12)
    parts = sk.multilabel_confusion_matrix(truth, predicted, labels=range(4))
    assert np.allclose(each["specificity"], parts[:, 0, 0] / parts[:, 0].sum(axis=1), atol=1e-12)


def test_the_undefined_is_said_to_be_so():
    assert np.isnan(auc(np.ones(3, bool), np.arange(3.0)))
    assert matthews(np.array([[5, 0], [0, 0]])) == 0.0
