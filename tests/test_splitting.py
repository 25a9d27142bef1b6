"""Splits: exact shares, whole groups, no dependence on order."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wbctool.errors import UsageProblem
from wbctool.records.assignment import assign_groups, parse_ratio
from wbctool.records.splits import add_folds, add_splits


@given(
    st.lists(st.sampled_from("ABC"), min_size=1, max_size=200),
    st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.2), (0.5, 0.1, 0.4), (0.2,) * 5]),
    st.integers(0, 5),
)
def test_single_items_are_shared_out_to_within_one_of_each_class(labels, shares, seed):
    parts = assign_groups(labels, [str(i) for i in range(len(labels))], shares, seed)
    for label in set(labels):
        own = Counter(int(p) for p, name in zip(parts, labels, strict=True) if name == label)
        for part, share in enumerate(shares):
            assert abs(own[part] - share * labels.count(label)) < 1 + 1e-9


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.integers(0, 30)), min_size=1, max_size=150), st.integers(0, 9))
def test_no_group_is_ever_parted(items, seed):
    labels, groups = zip(*items, strict=True)
    parts = assign_groups(labels, [str(g) for g in groups], (0.7, 0.15, 0.15), seed)
    for group in set(groups):
        assert len({int(p) for p, g in zip(parts, groups, strict=True) if g == group}) == 1


def test_groups_of_many_sizes_come_near_their_shares():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), rng.integers(1, 12, 300)).astype(str)
    labels = rng.choice(list("ABC"), len(groups), p=[0.6, 0.3, 0.1])
    parts = assign_groups(list(labels), list(groups), (0.7, 0.15, 0.15), 0)
    for label in "ABC":
        found = np.bincount(parts[labels == label], minlength=3) / (labels == label).sum()
        assert np.allclose(found, (0.7, 0.15, 0.15), atol=0.02)


def test_the_split_does_not_depend_on_the_order_and_does_on_the_seed():
    labels, groups = list("AB" * 50), [str(i) for i in range(100)]
    first = assign_groups(labels, groups, (0.5, 0.5), 1)
    turned = assign_groups(labels[::-1], groups[::-1], (0.5, 0.5), 1)
    assert np.array_equal(first, turned[::-1])
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


def test_folds_test_every_record_once_and_never_part_a_group():
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
    ("text", "shares"), [("70/15/15", [0.7, 0.15, 0.15]), ("4/1", [0.8, 0.2]), ("1/0/1", [0.5, 0, 0.5])]
)
def test_ratios(text, shares):
    assert list(parse_ratio(text).values()) == pytest.approx(shares)


@pytest.mark.parametrize("text", ["", "70", "70/x", "0/50/50", "-1/2", "1/2/3/4", "nan/1", "inf/1"])
def test_a_bad_ratio_is_a_usage_error(text):
    with pytest.raises(UsageProblem, match="--ratio"):
        parse_ratio(text)


def test_the_command_keeps_unknown_keys_warns_of_lacking_classes_and_writes_a_file(cli, tmp_path):
    lines = [{**record, "patient": {"age": i}} for i, record in enumerate(records(12))]
    lines.append({"schema": "wbctool.image/1", "id": "odd", "path": "odd", "label": "RARE"})
    done = cli("split", "-", "-o", tmp_path / "s.jsonl", stdin="\n".join(map(json.dumps, lines)))
    assert done.code == 0
    assert [r["patient"]["age"] for r in done.records[:12]] == list(range(12))
    assert (tmp_path / "s.jsonl").read_text() == done.out
    assert "class RARE has no image in val, test" in done.err


@pytest.mark.parametrize("count", [9, 10, 17, 30, 50])
@pytest.mark.parametrize("shares", [(0.7, 0.15, 0.15), (0.2,) * 5])
def test_parts_of_one_share_are_as_large_in_all(count, shares):
    labels = [name for name in "ABCDE" for _ in range(count)]
    parts = assign_groups(labels, [str(i) for i in range(len(labels))], shares, 0)
    sizes = np.bincount(parts, minlength=len(shares))[1:]
    assert sizes.max() - sizes.min() <= 1


def test_more_folds_than_any_class_has_groups_are_refused():
    records = [{"schema": "wbctool.image/1", "id": f"{i}", "path": f"/{i}", "label": "AB"[i % 2]} for i in range(10)]
    assert {record["fold"] for record in add_folds(records, 5, 1, 0)} == {1, 2, 3, 4, 5}
    with pytest.raises(UsageProblem, match="--folds 6: no class has more than 5 groups"):
        add_folds(records, 6, 1, 0)
