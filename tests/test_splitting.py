"""Splits: exact fractions, whole groups, no dependence on order."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wbctool.errors import UsageProblem
from wbctool.records.splits import add_folds, add_splits, assign_groups, parse_ratio


@given(
    st.lists(st.sampled_from("ABC"), min_size=1, max_size=200),
    st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.2), (0.5, 0.1, 0.4), (0.2,) * 5]),
    st.integers(0, 5),
)
def test_single_items_are_assigned_to_within_one_of_each_class(labels, fractions, seed):
    subsets = assign_groups(labels, [str(i) for i in range(len(labels))], fractions, seed)
    for label in set(labels):
        counts = Counter(int(s) for s, name in zip(subsets, labels, strict=True) if name == label)
        for subset, fraction in enumerate(fractions):
            assert abs(counts[subset] - fraction * labels.count(label)) < 1 + 1e-9


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.integers(0, 30)), min_size=1, max_size=150), st.integers(0, 9))
def test_groups_stay_whole(items, seed):
    labels, groups = zip(*items, strict=True)
    subsets = assign_groups(labels, [str(g) for g in groups], (0.7, 0.15, 0.15), seed)
    for group in set(groups):
        assert len({int(s) for s, g in zip(subsets, groups, strict=True) if g == group}) == 1


def test_groups_of_many_sizes_come_near_their_fractions():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), rng.integers(1, 12, 300)).astype(str)
    labels = rng.choice(list("ABC"), len(groups), p=[0.6, 0.3, 0.1])
    subsets = assign_groups(list(labels), list(groups), (0.7, 0.15, 0.15), 0)
    for label in "ABC":
        result = np.bincount(subsets[labels == label], minlength=3) / (labels == label).sum()
        assert np.allclose(result, (0.7, 0.15, 0.15), atol=0.02)


def test_the_split_does_not_depend_on_the_order_and_does_on_the_seed():
    labels, groups = list("AB" * 50), [str(i) for i in range(100)]
    first = assign_groups(labels, groups, (0.5, 0.5), 1)
    reversed_order = assign_groups(labels[::-1], groups[::-1], (0.5, 0.5), 1)
    assert np.array_equal(first, reversed_order[::-1])
    assert not np.array_equal(first, assign_groups(labels, groups, (0.5, 0.5), 2))


def records(count=60):
    return [
        {"schema": "wbctool.image/1", "id": str(i), "path": str(i), "label": "AB"[i % 2], "group": str(i // 3)}
        for i in range(count)
    ]


def test_errors_stay_in_place_and_have_no_split():
    broken = {"schema": "wbctool.error/1", "id": "x", "path": None, "error": "bad"}
    done = add_splits([*records(9), broken, *records(3)], {"train": 0.5, "test": 0.5}, 0)
    assert done[9] == broken
    assert all("split" in record for record in done if record is not broken)


def test_folds_test_every_record_once_and_keep_groups_whole():
    tested = Counter()
    for fold in range(1, 6):
        done = add_folds(records(), 5, fold, seed=3)
        assert {r["fold"] for r in done} == {1, 2, 3, 4, 5}
        assert {r["split"] for r in done if r["fold"] == fold} == {"test"}
        tested.update(r["id"] for r in done if r["split"] == "test")
        split_of = {}
        assert all(split_of.setdefault(r["group"], r["split"]) == r["split"] for r in done)
    assert tested == Counter({str(i): 1 for i in range(60)})


@pytest.mark.parametrize(
    ("text", "fractions"), [("70/15/15", [0.7, 0.15, 0.15]), ("4/1", [0.8, 0.2]), ("1/0/1", [0.5, 0, 0.5])]
)
def test_ratios(text, fractions):
    assert list(parse_ratio(text).values()) == pytest.approx(fractions)


@pytest.mark.parametrize("text", ["", "70", "70/x", "0/50/50", "-1/2", "1/2/3/4", "nan/1", "inf/1"])
def test_a_bad_ratio_is_a_usage_error(text):
    with pytest.raises(UsageProblem, match="--ratio"):
        parse_ratio(text)


def test_the_command_keeps_unknown_keys_warns_of_missing_classes_and_writes_a_file(cli, tmp_path):
    lines = [{**record, "patient": {"age": i}} for i, record in enumerate(records(12))]
    lines.append({"schema": "wbctool.image/1", "id": "odd", "path": "odd", "label": "RARE"})
    done = cli("split", "-", "-o", tmp_path / "s.jsonl", stdin="\n".join(map(json.dumps, lines)))
    assert done.code == 0
    assert [r["patient"]["age"] for r in done.records[:12]] == list(range(12))
    assert (tmp_path / "s.jsonl").read_text() == done.out
    assert "class RARE has no image in val, test" in done.err


@pytest.mark.parametrize("count", [9, 10, 17, 30, 50])
@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.2,) * 5])
def test_subsets_of_equal_fractions_have_equal_sizes(count, fractions):
    labels = [name for name in "ABCDE" for _ in range(count)]
    subsets = assign_groups(labels, [str(i) for i in range(len(labels))], fractions, 0)
    sizes = np.bincount(subsets, minlength=len(fractions))[1:]
    assert sizes.max() - sizes.min() <= 1


def test_more_folds_than_any_class_has_groups_are_refused():
    records = [{"schema": "wbctool.image/1", "id": f"{i}", "path": f"/{i}", "label": "AB"[i % 2]} for i in range(10)]
    assert {record["fold"] for record in add_folds(records, 5, 1, 0)} == {1, 2, 3, 4, 5}
    with pytest.raises(UsageProblem, match="--folds 6: no class has more than 5 groups"):
        add_folds(records, 6, 1, 0)


def test_the_stage_function_gives_records_and_counts_without_printing(drawn, capsys):
    from wbctool.splitting import SplitOptions, split_records

    result = split_records([str(drawn / "images")], SplitOptions(ratio="2/1", seed=1), quiet=True)
    assert result.count == len(result.records) == 48
    assert result.images["band"] == {"train": 4, "test": 2}
    assert result.groups == {"train": 32, "test": 16}
    assert result.failed == 0
    assert capsys.readouterr() == ("", "")
