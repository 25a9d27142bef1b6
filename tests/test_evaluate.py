"""`evaluate` and `info`: their output and their errors."""

import json

import pytest
from sklearn.metrics import accuracy_score, f1_score

from wbctool.errors import UsageProblem


def prediction(number, label, predicted, **more):
    other = "B" if predicted == "A" else "A"
    return {
        "schema": "wbctool.prediction/1",
        "id": str(number),
        "path": f"/x/{number}.png",
        **({"label": label} if label else {}),
        "predicted": predicted,
        "confidence": 0.75,
        "probabilities": {predicted: 0.75, other: 0.25},
        **more,
    }


def lines(*records):
    return "\n".join(json.dumps(record) for record in records)


PAIRS = [("A", "A"), ("A", "A"), ("A", "B"), ("B", "B"), ("B", "A"), ("B", "B"), ("B", "B")]


def test_the_json_is_flat_and_correct(cli):
    text = lines(*(prediction(i, *pair) for i, pair in enumerate(PAIRS)))
    done = cli("evaluate", "-", "--json", stdin=text)
    assert done.code == 0
    assert len(done.out.splitlines()) == 1
    report = json.loads(done.out)
    truth, predicted = zip(*PAIRS, strict=True)
    assert report["n"] == 7
    assert report["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert report["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert report["confusion"] == {"classes": ["A", "B"], "matrix": [[2, 1], [1, 3]]}
    assert report["classes"]["A"]["support"] == 3
    assert report["classes"]["B"]["recall"] == pytest.approx(0.75)


def test_the_report_fits_80_columns_and_a_pipe(cli):
    names = ["a class with a very long name indeed", "B", "[red]C[/red]", *"DEFGHIJKL"]
    records = [
        {
            **prediction(i, "A", "A"),
            "label": names[i % 12],
            "predicted": names[(i * i) % 12],
            "probabilities": dict.fromkeys(names, 1 / 12),
        }
        for i in range(60)
    ]
    done = cli("evaluate", "-", stdin=lines(*records))
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert "\x1b" not in done.out
    assert "[red]C[/red]" in done.out
    assert "not a medical device" in done.out


def test_test_is_taken_where_records_carry_splits(cli):
    records = [prediction(i, "A", "A", split="val") for i in range(3)]
    records += [prediction(9, "A", "B", split="test"), prediction(10, "B", "B", split="test")]
    counts = {
        choice: json.loads(cli("evaluate", "-", "--json", *choice, stdin=lines(*records)).out)["n"]
        for choice in ((), ("--split", "val"), ("--split", "all"))
    }
    assert list(counts.values()) == [2, 3, 5]
    assert "test is evaluated" in cli("evaluate", "-", stdin=lines(*records)).err
    missing = cli("evaluate", "-", "--split", "train", stdin=lines(*records))
    assert missing.code == 3
    assert "splits found: val, test" in missing.err


def test_records_left_out_are_reported(cli):
    records = [prediction(1, "A", "A"), prediction(2, None, "A"), prediction(3, "Z", "B")]
    records.append({"schema": "wbctool.error/1", "id": "4", "path": "/x/4", "error": "gone"})
    done = cli("evaluate", "-", stdin=lines(*records))
    assert done.code == 0
    for words in ("1 error records", "1 predictions without a label", "does not know: Z (1)"):
        assert words in done.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no labelled predictions"),
        ("{", "line 1"),
        (lines(prediction(1, "A", "A")) + "\nx\n", "line 2"),
        (lines(prediction(1, None, "A")), "1 predictions without a label"),
        (lines({"schema": "wbctool.image/1", "id": "7", "path": "p"}), "7 is a wbctool.image/1 record"),
        (lines(prediction(1, "Z", "A")), "knows none of the labels: Z"),
    ],
)
def test_unusable_input_is_one_line(cli, text, words):
    done = cli("evaluate", "-", stdin=text)
    assert done.code == 3
    assert done.out == ""
    assert words in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probabilities": {"A": 0.5, "B": 0.3}}, "line 2: 2: its probabilities sum to 0.8, not to 1"),
        ({"id": "1"}, "line 2: 1 is in line 1, too"),
        ({"probabilities": {"B": 1.0}}, "line 2: 2: the predicted class has no probability"),
        ({"schema": "wbctool.image/1"}, "line 2: 2 is a wbctool.image/1 record"),
        ({"confidence": 1.5}, "line 2: confidence"),
    ],
)
def test_an_invalid_record_is_named_with_its_line(cli, change, words):
    done = cli("evaluate", "-", stdin=lines(prediction("1", "A", "A"), {**prediction("2", "A", "A"), **change}))
    assert done.code == 3
    assert done.out == ""
    assert words in done.err
    assert len(done.err.splitlines()) == 1


def test_the_first_line_of_records_left_out_is_named(cli):
    text = lines(prediction(1, "A", "A"), prediction(2, None, "A"), prediction(3, "Z", "A"), prediction(4, None, "A"))
    left_out = json.loads(cli("evaluate", "-", "--json", stdin=text).out)["left_out"]
    assert left_out == [
        "2 predictions without a label (first: stdin line 2)",
        "1 images of classes the model does not know: Z (1) (first: line 3)",
    ]


def test_groups_widen_the_intervals_and_are_counted(cli):
    rows = [prediction(i, "AB"[i % 2], "AB"[(i % 2) ^ (i % 40 < 6)], group=f"g{i % 40}") for i in range(400)]
    alone = [{key: value for key, value in row.items() if key != "group"} for row in rows]
    grouped, single = (json.loads(cli("evaluate", "-", "--json", stdin=lines(*each)).out) for each in (rows, alone))
    assert (grouped["groups"], single["groups"]) == (40, 400)
    assert grouped["accuracy"] == single["accuracy"] == 0.85
    widths = [report["intervals"]["accuracy"][1] - report["intervals"]["accuracy"][0] for report in (grouped, single)]
    assert widths[0] > 2.5 * widths[1]
    assert "40 groups" in cli("evaluate", "-", stdin=lines(*rows)).out


def test_errors_are_listed(cli):
    rows = [prediction(i, "A", "B" if i < 3 else "A") for i in range(9)]
    report = json.loads(cli("evaluate", "-", "--json", stdin=lines(*rows)).out)
    assert report["confused"] == [{"label": "A", "predicted": "B", "count": 3, "share": pytest.approx(1 / 3)}]
    assert {image["id"] for image in report["wrongest"]} == {"0", "1", "2"}
    out = cli("evaluate", "-", stdin=lines(*rows)).out
    assert "A as B: 3 (33%)" in out
    assert "/x/1" in out


def test_a_run_folder_and_its_predictions_give_the_same_report(cli, run_folder):
    one = cli("evaluate", run_folder, "--json").out
    assert one == cli("evaluate", run_folder / "predictions.jsonl", "--json").out
    table = cli("evaluate", run_folder, run_folder / "predictions.jsonl")
    assert table.code == 0, table.err
    assert "macro averages" in table.out
    twice = cli("evaluate", run_folder, run_folder)
    assert (twice.code, "is given twice" in twice.err) == (2, True)


def test_labels_can_be_renamed_when_evaluating(cli):
    text = lines(prediction(1, "old", "A"), prediction(2, "B", "B"))
    report = json.loads(cli("evaluate", "-", "--json", "--map", "old=A", stdin=text).out)
    assert (report["n"], report["accuracy"]) == (2, 1.0)


def test_one_class_has_no_auc_and_json_stays_valid(cli):
    report = json.loads(cli("evaluate", "-", "--json", stdin=lines(prediction(1, "A", "A"))).out)
    assert report["macro_auc"] is None


def test_python_functions_return_what_the_command_prints(cli, run_folder, tmp_path):
    from wbctool.evaluation import EvaluationOptions, evaluate_predictions

    evaluation = evaluate_predictions([str(run_folder)], EvaluationOptions(split="all", threshold=0.3))
    printed = cli("evaluate", run_folder, "--split", "all", "--threshold", 0.3, "--json").out
    assert [json.loads(line) for line in printed.splitlines()] == evaluation.reports
    evaluation.write_page(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000
    with pytest.raises(UsageProblem, match="--split dev"):
        evaluate_predictions([str(run_folder)], EvaluationOptions(split="dev"))


def test_info_distinguishes_runs_records_and_images(cli, drawn, masks, run_folder):
    run = json.loads(cli("info", run_folder, "--json").out)
    assert (run["kind"], run["backbone"], run["attention"]) == ("run folder", "resnet10t", "none")
    records = json.loads(cli("info", masks, "--json").out)
    assert records["records"] == {"wbctool.mask/1": 48}
    assert records["classes"]["band"] == 6
    images = json.loads(cli("info", drawn / "images", "--json").out)
    assert (images["kind"], images["records"]) == ("images", {"wbctool.image/1": 48})
    assert cli("info", run_folder).out == cli("info", run_folder, "--json").out


def test_subgroups_are_evaluated_alone_the_worst_first(cli, tmp_path):
    sites = ["Porto"] * 3 + ["<b>Lund</b>"] * 3 + [None]
    rows = [
        prediction(i, *pair, **({"site": site} if site else {}))
        for i, (pair, site) in enumerate(zip(PAIRS, sites, strict=True))
    ]
    report = json.loads(cli("evaluate", "-", "--by", "site", "--json", stdin=lines(*rows)).out)["by"]
    assert (report["key"], report["without"]) == ("site", 1)
    first, second = report["subgroups"]
    assert [(each["name"], each["n"]) for each in (first, second)] == [("Porto", 3), ("<b>Lund</b>", 3)]
    assert first["accuracy"] == second["accuracy"] == pytest.approx(2 / 3)
    page = tmp_path / "page.html"
    done = cli("evaluate", "-", "--by", "site", "--html", page, stdin=lines(*rows))
    assert "Porto" in done.out
    assert "1 image" in done.out
    assert "<b>Lund" not in page.read_text()
    missing = cli("evaluate", "-", "--by", "lab", stdin=lines(*rows))
    assert (missing.code, missing.out) == (3, "")
    assert "lab" in missing.err


def test_the_subgroup_of_the_lowest_balanced_accuracy_comes_first(cli):
    pairs = [("A", "A", 1), ("B", "B", 1), ("A", "B", 2), ("B", "B", 2), ("A", "A", 3), ("B", "A", 3)]
    rows = [prediction(i, label, predicted, site=site) for i, (label, predicted, site) in enumerate(pairs)]
    by = json.loads(cli("evaluate", "-", "--by", "site", "--json", stdin=lines(*rows)).out)["by"]
    assert [subgroup["name"] for subgroup in by["subgroups"]] == ["2", "3", "1"]
    assert [subgroup["accuracy"] for subgroup in by["subgroups"]] == [0.5, 0.5, 1.0]
