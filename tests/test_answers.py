"""Predictions with other classes than the run's: merged ones, and some left out."""

import numpy as np
import pytest
from conftest import read_records

from wbctool.errors import UsageProblem
from wbctool.inference.answers import Answers

CLASSES = ("BNE", "EO", "PLT", "SNE")


def test_merged_probabilities_add_up_and_the_rest_is_renormalised():
    answers = Answers.of(CLASSES, "neutrophil,EO", ("BNE=neutrophil", "SNE=neutrophil"))
    assert answers.names == ("neutrophil", "EO")
    assert answers.stated == {"merged": {"neutrophil": ["BNE", "SNE"]}, "excluded": ["PLT"]}
    rows = np.array([[0.2, 0.1, 0.5, 0.2], [0, 0, 1, 0], [np.nan] * 4])
    result = answers.probabilities(rows)
    assert np.allclose(result[:2], [[0.8, 0.2], [0.5, 0.5]])
    assert np.isnan(result[2]).all()


def test_without_options_the_answers_are_the_classes():
    answers = Answers.of(CLASSES, None, ())
    rows = np.random.default_rng(0).dirichlet([1] * 4, 5)
    assert answers.names == CLASSES
    assert answers.stated == {}
    assert np.allclose(answers.probabilities(rows), rows)


def test_a_new_name_may_be_that_of_another_class():
    answers = Answers.of(CLASSES, None, ("BNE=SNE",))
    assert answers.names == ("SNE", "EO", "PLT")
    assert answers.stated == {"merged": {"SNE": ["BNE", "SNE"]}}
    assert np.allclose(answers.probabilities(np.array([[0.1, 0.2, 0.3, 0.4]])), [[0.5, 0.2, 0.3]])


@pytest.mark.parametrize(
    ("kept", "rename", "word"), [("EO,XY", (), "XY"), ("EO", (), "EO"), ("BNE", ("BNE=N",), "BNE")]
)
def test_what_the_run_does_not_answer_is_refused(kept, rename, word):
    with pytest.raises(UsageProblem, match=word):
        Answers.of(CLASSES, kept, rename)


def test_predict_merges_labels_and_probabilities_alike(cli, cells, run_folder, tmp_path):
    out, words = tmp_path / "p.jsonl", ("--map", "band=granulocyte", "--map", "neutrophil=granulocyte")
    cli("predict", run_folder, cells, "-o", tmp_path / "all.jsonl")
    done = cli("predict", run_folder, cells, "-o", out, *words)
    assert done.code == 0, done.err
    for before, after in zip(read_records(tmp_path / "all.jsonl"), read_records(out), strict=True):
        old, new = before["probabilities"], after["probabilities"]
        assert new["granulocyte"] == pytest.approx(old["band"] + old["neutrophil"], rel=1e-4)
        assert after["merged"] == {"granulocyte": ["band", "neutrophil"]}
        assert after["predicted"] == max(new, key=new.get)
        merged = before["label"] in ("band", "neutrophil")
        assert after["label"] == ("granulocyte" if merged else before["label"])
    assert cli("predict", run_folder, cells, "-o", out, *words).code == 0
    refused = cli("predict", run_folder, cells, "-o", out)
    assert refused.code == 2
    assert "merged" in refused.err


def test_predict_leaves_classes_out_and_keeps_images_without_a_label(cli, cells, run_folder, tmp_path):
    names = list(read_records(run_folder / "predictions.jsonl")[0]["probabilities"])
    labels = tmp_path / "labels.csv"
    first, second = (next(cells.glob(f"{name}/*.png")) for name in names[:2])
    labels.write_text(f"image,label\n{first.name},{names[0]}\n")
    folder = tmp_path / "some"
    folder.mkdir()
    for path in (first, second):
        (folder / path.name).write_bytes(path.read_bytes())
    done = cli(
        "predict", run_folder, folder, "--labels", labels, "--classes", ",".join(names[:2]), "-o", tmp_path / "p"
    )
    assert done.code == 0, done.err
    records = {record["id"]: record for record in read_records(tmp_path / "p")}
    assert [records[path.name].get("label") for path in (first, second)] == [names[0], None]
    for record in records.values():
        assert list(record["probabilities"]) == names[:2]
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert record["excluded"] == names[2:]
    assert cli("predict", run_folder, cells, "--classes", "basophil,nothing").code == 2
