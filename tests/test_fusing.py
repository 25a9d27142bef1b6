"""Boosted trees: which features they use, what they start from, what is kept on disk, the search for parameters."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import xgboost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sklearn.metrics import accuracy_score, log_loss
from sklearn.utils.class_weight import compute_class_weight

from wbctool.errors import BusyError, InputError, UsageProblem
from wbctool.fusing import BoostingOptions
from wbctool.fusing.boosting import Samples, boost, check_parameters, class_weights
from wbctool.fusing.feature_table import FeatureReader
from wbctool.fusing.fusion import limit_confidence, start_margins
from wbctool.fusing.search import draw_parameters, grouped_folds, search
from wbctool.fusing.store import Store
from wbctool.modeling.fused import check_names, run_names, weighted_margins
from wbctool.modeling.predictor import rounded

NAMES = [f"f{number}" for number in range(6)]
FEW = BoostingOptions(rounds=12, patience=4, jobs=1, device="cpu")


def random_samples(count, seed, classes=3):
    """Features that mostly separate the classes, and targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, count)
    rows = rng.normal(size=(count, len(NAMES))).astype(np.float32)
    rows[:, 0] += 1.5 * targets
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows, targets


def reader(rows):
    return FeatureReader(NAMES, rows.__getitem__)


def raw(booster):
    return bytes(booster.save_raw("ubj"))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=some.integers(0, 10**6), size=some.integers(1, 40), start=some.booleans())
def test_validation_only_decides_when_to_stop_and_test_is_never_read(seed, size, start):
    rows, targets = random_samples(160, 1)
    train, val, test = np.arange(80), np.arange(80, 120), np.arange(120, 160)
    rng = np.random.default_rng(seed)
    margins = rng.normal(size=(160, 3)).astype(np.float32) if start else None
    read_rows = []

    def samples(indices, labels, start):
        return Samples(indices, labels[indices], start[indices] if start is not None else None)

    def boosted(features, labels, val, start):
        def read(indices):
            read_rows.append(indices)
            return features[indices]

        reader = FeatureReader(NAMES, read)
        return boost(reader, samples(train, labels, start), samples(val, labels, start), 3, FEW)

    plain = boosted(rows, targets, val, margins)
    other_rows, other_targets = rows.copy(), targets.copy()
    other_rows[80:] = rng.normal(scale=9, size=(80, len(NAMES)))
    other_targets[80:] = rng.integers(0, 3, 80)
    other_margins = None
    if start:
        other_margins = margins.copy()
        other_margins[80:] = rng.normal(scale=5, size=(80, 3))
    other = boosted(other_rows, other_targets, val[:size], other_margins)
    assert not np.isin(np.concatenate(read_rows), test).any()
    both = min(plain.rounds, other.rounds)
    if both:
        assert plain.booster[:both].get_dump(with_stats=True) == other.booster[:both].get_dump(with_stats=True)
    assert plain.booster.num_boosted_rounds() == plain.rounds


def test_boosting_stops_at_the_lowest_validation_loss_and_reports_it():
    rows, targets = random_samples(300, 2)
    train, val = Samples(np.arange(200), targets[:200]), Samples(np.arange(200, 300), targets[200:])
    options = BoostingOptions(rounds=400, patience=10, jobs=1, device="cpu")
    result = boost(reader(rows), train, val, 3, options)
    losses = [row["val_loss"] for row in result.history]
    assert result.rounds == int(np.argmin(losses)) + 1 == result.booster.num_boosted_rounds()
    assert len(losses) == result.rounds + 10
    predicted = result.booster.predict(xgboost.DMatrix(rows[200:], feature_names=NAMES))
    assert result.loss == pytest.approx(log_loss(targets[200:], predicted, labels=[0, 1, 2]), abs=1e-5)
    assert result.accuracy == pytest.approx(accuracy_score(targets[200:], predicted.argmax(1)))
    again = boost(reader(rows), train, val, 3, options)
    assert raw(result.booster) == raw(again.booster)
    other = boost(reader(rows), train, val, 3, options.model_copy(update={"seed": 1}))
    assert raw(result.booster) != raw(other.booster)


def test_batches_give_the_trees_of_one_matrix(monkeypatch):
    rows, targets = random_samples(300, 2)
    train, val = Samples(np.arange(200), targets[:200]), Samples(np.arange(200, 300), targets[200:])
    whole = boost(reader(rows), train, val, 3, FEW)
    monkeypatch.setattr("wbctool.fusing.boosting.BATCH_ROWS", 64)
    assert boost(reader(rows), train, val, 3, FEW).rounds == whole.rounds


def test_a_start_that_no_tree_improves_is_kept():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 200)
    rows = rng.normal(size=(200, 6)).astype(np.float32)  # independent of the targets
    start = 40 * np.eye(3, dtype=np.float32)[targets]
    train, val = (
        Samples(np.arange(*ends), targets[slice(*ends)], start[slice(*ends)]) for ends in ((0, 100), (100, 200))
    )
    result = boost(reader(rows), train, val, 3, FEW)
    assert (result.rounds, result.accuracy) == (0, 1.0)
    data = xgboost.DMatrix(rows, feature_names=NAMES, base_margin=start)
    assert np.allclose(result.booster.predict(data, output_margin=True), start)


def test_a_significant_gain_is_more_than_a_standard_error():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 260)
    rows = rng.normal(size=(260, 6)).astype(np.float32)
    start = rng.normal(size=(260, 2)).astype(np.float32)
    outcomes = set()
    for strength in (0.15, 2.0):
        informative = rows.copy()
        informative[:, 0] += strength * targets
        splits = [Samples(part, targets[part], start[part]) for part in (np.arange(200), np.arange(200, 260))]
        rounds = []
        for significant in (False, True):
            options = BoostingOptions(rounds=60, jobs=1, device="cpu")
            result = boost(reader(informative), *splits, 2, options, significant=significant)
            rounds.append(result.rounds)
            if result.rounds:
                data = xgboost.DMatrix(informative[200:], feature_names=NAMES, base_margin=start[200:])
                predicted = result.booster.predict(data)
                gain = -np.log(np.exp(start[200:]) / np.exp(start[200:]).sum(1, keepdims=True))
                gain = (gain + np.log(predicted))[np.arange(60), targets[200:]]
                assert gain.mean() > significant * gain.std() / np.sqrt(60)
        outcomes.add((rounds[0] > 0, rounds[1] > 0))
    assert outcomes == {(True, False), (True, True)}


def test_without_validation_a_fixed_number_of_rounds_is_grown():
    rows, targets = random_samples(100, 3)
    empty = Samples(np.zeros(0, np.int64), np.zeros(0, np.int64))
    result = boost(reader(rows), Samples(np.arange(100), targets), empty, 3, FEW)
    assert result.rounds == len(result.history) == 12
    assert np.isnan(result.loss)


def test_class_weights_are_those_of_scikit_learn():
    targets = np.array([0] * 50 + [1] * 10 + [2] * 3)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    assert class_weights(targets, "balanced") == pytest.approx(expected[targets])
    assert class_weights(targets, "none") == pytest.approx(1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"nonsense": 3}, "nonsense: XGBoost knows no such parameter"),
        ({"max_depth": "deep"}, "max_depth"),
        ({"subsample": 7}, "subsample"),
        ({"num_class": 3}, "is set by wbctool itself"),
        ({"random_state": 3}, "is set by wbctool itself"),
        ({"eta": 0.1, "learning_rate": 0.2}, "learning_rate is given twice"),
        ({"booster": "gblinear"}, "choose from gbtree, dart"),
        ({"max_bin": None}, "give a whole number"),
    ],
)
def test_invalid_parameters_are_named_before_anything_is_computed(parameters, message):
    with pytest.raises(UsageProblem, match=message):
        check_parameters(BoostingOptions(parameters=parameters))


def test_known_parameters_go_by_one_name_and_change_the_trees():
    options = BoostingOptions(parameters={"eta": 0.9, "lambda": 50, "grow_policy": "lossguide", "max_leaves": 7})
    check_parameters(options)
    assert options.parameters == {"learning_rate": 0.9, "reg_lambda": 50, "grow_policy": "lossguide", "max_leaves": 7}
    rows, targets = random_samples(100, 3)
    splits = Samples(np.arange(80), targets[:80]), Samples(np.arange(80, 100), targets[80:])
    dumps = set()
    for parameters in ({}, {"eta": 0.9}, {"lambda": 50}):
        options = BoostingOptions(rounds=3, jobs=1, device="cpu", parameters=parameters)
        dumps.add("".join(boost(reader(rows), *splits, 3, options).booster.get_dump()))
    assert len(dumps) == 3


def test_an_interrupt_while_rows_are_read_ends_boosting():
    import os
    import signal

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    rows, targets = random_samples(100, 3)

    def read(indices):
        os.kill(os.getpid(), signal.SIGINT)
        return rows[indices]

    splits = Samples(np.arange(80), targets[:80]), Samples(np.arange(80, 100), targets[80:])
    with pytest.raises(KeyboardInterrupt):
        boost(FeatureReader(NAMES, read), *splits, 3, FEW)
    signal.signal(signal.SIGINT, before)


def test_margins_are_scaled_to_the_wanted_confidence():
    rng = np.random.default_rng(0)
    margins = rng.normal(scale=4, size=(500, 5))
    softened = limit_confidence(margins, 0.6)
    powers = np.exp(softened - softened.max(1, keepdims=True))
    assert (powers.max(1) / powers.sum(1)).mean() == pytest.approx(0.6, abs=1e-6)
    assert np.allclose(softened / margins, (softened / margins)[0, 0])
    assert limit_confidence(margins, None) is margins
    assert limit_confidence(margins, 0.9999) is margins


def test_the_start_is_the_mean_calibrated_prediction_with_limited_confidence_on_training_images():
    rng = np.random.default_rng(0)
    probabilities = [rng.dirichlet(np.full(4, 0.2), 60) for _ in range(2)]
    weights = (1 / (2 * 0.5), 1 / (2 * 2.0))  # temperatures 0.5 and 2
    train = np.arange(30)
    start = start_margins(probabilities, weights, (0.6, None), train)
    expected = (np.log(np.maximum(probabilities[0], 1e-7)) / 0.5 + np.log(np.maximum(probabilities[1], 1e-7)) / 2) / 2
    assert start[30:] == pytest.approx(expected[30:], abs=1e-4)
    assert not np.allclose(start[:30], expected[:30])
    changed = [rows.copy() for rows in probabilities]
    for rows in changed:
        rows[30:] = rng.dirichlet(np.ones(4), 30)
    assert np.array_equal(start_margins(changed, weights, (0.6, None), train)[:30], start[:30])
    assert weighted_margins(probabilities, ()) is None


def test_rounding_keeps_eleven_bits():
    values = np.array([1.0, 1 + 2**-11, 1 + 2**-13, -3.1415927, 1e-30, 0.0, np.nan, np.inf, -np.inf], np.float32)
    result = rounded(values)
    assert result[:3].tolist() == [1.0, 1 + 2**-11, 1.0]
    assert result[3] == pytest.approx(-3.1415927, rel=2**-12)
    assert np.isnan(result[6])
    assert result[7:].tolist() == [np.inf, -np.inf]
    many = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    assert (np.abs(rounded(many) - many) <= np.abs(many) * 2**-12 * 1.0001).all()
    assert np.array_equal(rounded(rounded(many)), rounded(many))


def test_features_in_another_order_are_named():
    check_names(["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match="feature 0 is b, not a"):
        check_names(["b", "a"], ["a", "b"])
    with pytest.raises(ValueError, match="1 features, not 2"):
        check_names(["a"], ["a", "b"])


def test_runs_have_unique_names(tmp_path):
    paths = [tmp_path / "x" / "run[1]", tmp_path / "y" / "run[1]", tmp_path / "z z"]
    assert run_names(paths) == ("run_1_", "run_1_-2", "z_z")


class Counting:
    """A source that gives the length of a record's path, and counts how often."""

    name, batch, uses_masks, width = "counting", 4, False, 2

    def __init__(self, version=1):
        self.identity = {"counting": version}
        self.computed = []

    @contextmanager
    def session(self):
        yield self._rows

    def _rows(self, batches):
        for batch in batches:
            self.computed.append([record["id"] for record in batch])
            yield [
                "broken" if "bad" in record["id"] else np.array([len(record["path"]), np.nan], np.float32)
                for record in batch
            ]


@pytest.fixture
def images(tmp_path):
    records = []
    for number in range(10):
        path = tmp_path / f"{'bad' if number == 5 else 'i'}{number}"
        path.write_text(str(number))
        records.append({"id": path.name, "path": str(path)})
    return records


def filled(folder, source, records):
    store = Store(folder, source)
    try:
        rows, failed = store.fill(records, quiet=True)
        return np.array(store.matrix()), rows, failed
    finally:
        store.close()


def test_features_are_computed_once_and_again_where_an_image_changed(images, tmp_path):
    import os

    folder, source = tmp_path / "kept", Counting()
    matrix, rows, failed = filled(folder, source, images)
    assert failed == {5: "broken"}
    assert rows.tolist() == [0, 1, 2, 3, 4, -1, 5, 6, 7, 8]
    assert matrix[:, 0].tolist() == [len(r["path"]) for r in images if "bad" not in r["id"]]
    assert np.isnan(matrix[:, 1]).all()
    assert [len(batch) for batch in source.computed] == [4, 4, 2]
    again = Counting()
    kept, rows, failed = filled(folder, again, images[::-1])
    assert np.array_equal(kept, matrix, equal_nan=True)
    assert failed == {4: "broken"}
    assert [len(batch) for batch in again.computed] == [4]  # the batch with the image that failed
    os.utime(images[2]["path"], ns=(1, 1))
    more = Counting()
    _, rows, _ = filled(folder, more, images[:3])
    assert rows.tolist() == [0, 1, 9]
    other = Counting(version=2)
    filled(folder, other, images)
    assert sum(map(len, other.computed)) == 10  # nothing is reused from another source


def test_half_a_row_left_by_a_kill_is_cut_off(images, tmp_path):
    folder = tmp_path / "kept"
    matrix, _, _ = filled(folder, Counting(), images)
    rows, keys = (next(folder.glob(f"*{ending}")) for ending in (".f32", ".keys"))
    rows.write_bytes(rows.read_bytes()[: 8 * 6 + 3])
    source = Counting()
    kept, _, _ = filled(folder, source, images)
    assert np.array_equal(kept, matrix, equal_nan=True)
    assert [len(batch) for batch in source.computed] == [4, 2]
    keys.write_bytes(keys.read_bytes()[:40])
    kept, _, _ = filled(folder, Counting(), images)
    assert np.array_equal(kept, matrix, equal_nan=True)


def test_features_that_another_command_computes_are_waited_for(images, tmp_path):
    store = Store(tmp_path / "kept", Counting())
    with pytest.raises(BusyError, match="another command is computing"):
        Store(tmp_path / "kept", Counting())
    store.close()


def test_folds_keep_groups_whole():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 200)
    groups = [f"g{number}" for number in rng.integers(0, 30, 200)]
    folds = grouped_folds(targets, groups, 3)
    assert len(folds) == 5
    assert sorted(np.concatenate([val for _, val in folds])) == list(range(200))
    for train, val in folds:
        assert not {groups[at] for at in train} & {groups[at] for at in val}
    few = grouped_folds(np.array([0, 0, 1, 1, 2, 2]), list("abcdef"), 3)
    assert len(few) == 2
    with pytest.raises(InputError, match="of one group"):
        grouped_folds(targets, ["g"] * 200, 3)


def test_a_search_depends_on_its_seed_resumes_and_keeps_given_parameters(tmp_path):
    assert draw_parameters(5, 1) == draw_parameters(9, 1)[:5]
    assert draw_parameters(5, 1) != draw_parameters(5, 2)
    assert draw_parameters(3, 1)[0] == {}
    rows, targets = random_samples(120, 4)
    train = Samples(np.arange(120), targets)
    groups = [str(number // 3) for number in range(120)]
    options = BoostingOptions(rounds=10, patience=3, jobs=1, device="cpu", parameters={"max_depth": 2})
    arguments = (reader(rows), train, groups, options, 4)
    best = search(*arguments, tmp_path / "a.jsonl", True)
    trials = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [trial["trial"] for trial in trials] == [1, 2, 3, 4]
    assert {trial["parameters"]["max_depth"] for trial in trials} == {2}
    assert best == min(trials, key=lambda trial: trial["loss"])["parameters"]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(trial) + "\n" for trial in trials[:2]) + '{"trial": 3, "lo')
    search(*arguments, tmp_path / "b.jsonl", True)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    trials[0]["loss"] = 0.123  # a finished trial is not computed again
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(trial) + "\n" for trial in trials))
    assert search(*arguments, tmp_path / "c.jsonl", True) == trials[0]["parameters"]
