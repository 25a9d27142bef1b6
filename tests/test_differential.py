"""The differential count by group, and its agreement with the truth."""

import csv
import io
import json

import pytest
from scipy import stats
from test_evaluate import lines, prediction

from wbctool.evaluation.differential import agreement_of
from wbctool.statistics.intervals import wilson_interval

# Peak expiratory flow by two meters, litres a minute: Bland and Altman 1986, table of 17 subjects (first readings)
WRIGHT = (494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427)
MINI = (512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451)


def test_bias_and_limits_are_those_of_the_published_example():
    agreement = agreement_of([wright - mini for wright, mini in zip(WRIGHT, MINI, strict=True)])
    assert agreement["bias"] == pytest.approx(-2.1, abs=0.05)
    assert (agreement["limits"][1] - agreement["bias"]) / 1.959964 == pytest.approx(38.8, abs=0.05)
    assert agreement["bias_interval"] == pytest.approx([-22.0, 17.8], abs=0.1)
    assert agreement_of([0.5]) == {
        "groups": 1, "bias": 0.5, "bias_interval": None, "limits": None, "limits_within": None,
    }  # fmt: skip


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 40), (40, 40), (117, 200)])
def test_fractions_have_wilsons_interval(count, total):
    """As Newcombe (1998) writes it, eq. 3."""
    z = stats.norm.ppf(0.975)
    p, q = count / total, 1 - count / total
    ends = [
        (2 * total * p + z**2 + sign * z * (z**2 + 4 * total * p * q) ** 0.5) / (2 * total + 2 * z**2)
        for sign in (-1, 1)
    ]
    assert wilson_interval(count, total) == pytest.approx(ends, abs=1e-12)
    assert wilson_interval(0, 0) is None


def cells():
    made = []
    for slide, (a, b) in {"s1": (6, 2), "s2": (1, 9)}.items():
        made += [prediction(f"{slide}-{i}", "A", "A" if i else "B", group=slide) for i in range(a)]
        made += [prediction(f"{slide}-b{i}", "B", "B", group=slide) for i in range(b)]
    return [*made, *(prediction(f"u{i}", None, "A", group="s3") for i in range(4))]


def test_counts_fractions_and_truth_of_each_slide(cli):
    report = json.loads(cli("evaluate", "-", "--differential", "--json", stdin=lines(*cells())).out)
    first, second, third = report["groups"]
    assert (first["group"], first["n"]) == ("s1", 8)
    assert first["classes"]["A"] == {
        "count": 5, "share": 0.625, "interval": [*wilson_interval(5, 8)], "truth": 0.75,
    }  # fmt: skip
    assert (second["classes"]["A"]["share"], second["classes"]["A"]["truth"]) == (0.0, 0.1)
    assert third["classes"]["A"] == {"count": 4, "share": 1.0, "interval": [*wilson_interval(4, 4)], "truth": None}
    assert report["agreement"]["A"]["groups"] == 2
    assert report["agreement"]["A"]["bias"] == pytest.approx((-0.125 - 0.1) / 2)


def test_the_table_fits_and_the_csv_is_long(cli):
    done = cli("evaluate", "-", "--differential", stdin=lines(*cells()))
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert "Agreement with the truth over 2 groups" in done.out
    text = cli("evaluate", "-", "--differential", "--format", "csv", stdin=lines(*cells())).out
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 6
    assert rows[0]["count"] == "5"


def test_uncertain_cells_are_left_out_and_counted(cli):
    rows = [
        *cells(),
        {**prediction("low", "A", "B", group="s1"), "confidence": 0.55, "probabilities": {"A": 0.45, "B": 0.55}},
    ]
    words = ("evaluate", "-", "--differential", "--threshold", 0.6, "--json")
    report = json.loads(cli(*words, stdin=lines(*rows)).out)
    assert (report["groups"][0]["n"], report["groups"][0]["uncertain"]) == (9, 1)
    assert sum(one["count"] for one in report["groups"][0]["classes"].values()) == 8


def test_several_runs_and_cells_that_come_twice_are_refused(cli):
    rows = [prediction("1", "A", "A", run="a"), prediction("1", "A", "B", run="b")]
    done = cli("evaluate", "-", "--differential", stdin=lines(*rows))
    assert done.code == 3
    assert "line 2: is of b, those before of a; count one run" in done.err
    twice = [prediction("1", "A", "A"), prediction("1", "A", "A")]
    assert "line 2: 1 is in stdin line 1, too" in cli("evaluate", "-", "--differential", stdin=lines(*twice)).err


def test_splits_and_options_that_do_not_go_together(cli):
    rows = [prediction("1", "A", "A", split="val", group="x"), prediction("2", "A", "B", split="test", group="y")]
    done = cli("evaluate", "-", "--differential", stdin=lines(*rows))
    assert "y: 1 cell\n" in done.out
    assert "x: 1 cell" not in done.out
    assert "test is counted" in done.err
    assert cli("evaluate", "-", "--differential", "--split", "train", stdin=lines(*rows)).code == 3
    assert cli("evaluate", "-", "--differential", "--audit", stdin=lines(*rows)).code == 2
