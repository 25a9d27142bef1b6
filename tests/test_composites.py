"""Composites are refused in validation and test, by every command that could put them there."""

import json

import pytest
from conftest import TINY, in_shell

ALLOW = "--allow-synthetic"


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def images(drawn, split, **more):
    """An image record of each of some drawn fields."""
    paths = sorted((drawn / "images").glob("*/*.jpg"))
    return [
        {
            "schema": "wbctool.image/1",
            "id": f"{path.parent.name}/{path.name}",
            "path": str(path),
            "label": path.parent.name,
            "split": split[k % len(split)],
            **more,
        }
        for k, path in enumerate(p for p in paths if p.parent.name in ("monocyte", "band"))
    ]


def composites(records, **more):
    return [
        {**r, "id": f"made/{k}.jpg", "synthetic": True, "sources": [r["id"]], **more} for k, r in enumerate(records)
    ]


def test_split_refuses_them_or_warns_where_they_are_allowed(drawn, tmp_path):
    real = images(drawn, ["train"])
    source = write(tmp_path / "in.jsonl", [*real, *composites(real[:3])])
    done = in_shell("split", source, "--ratio", "1/1/1")
    assert (done.code, done.out) == (3, "")
    assert "made/0.jpg: is a composite (3 in all)" in done.err
    allowed = in_shell("split", source, "--ratio", "1/1/1", ALLOW)
    assert allowed.code == 0
    count = sum(bool(r.get("synthetic")) and r["split"] != "train" for r in allowed.records)
    assert f"{count:,} composites are in validation or test" in allowed.err


@pytest.mark.parametrize("name", ["val", "test"])
def test_train_refuses_them_outside_training(drawn, tmp_path, name):
    real = images(drawn, ["train", "train", "val", "test"])
    train = [r for r in real if r["split"] == "train"]
    source = write(tmp_path / "in.jsonl", [*real, *composites(train[:2], split=name, group="other")])
    done = in_shell("train", source, "-o", tmp_path / "run", *TINY, "--epochs", 1)
    assert done.code == 3
    assert f"made/0.jpg: is a composite in {name}; leave it out" in done.err
    assert not (tmp_path / "run").exists()


def test_train_refuses_composites_made_of_held_out_images(drawn, tmp_path):
    real = images(drawn, ["train", "train", "val", "test"])
    holdout = [r for r in real if r["split"] == "test"]
    source = write(tmp_path / "in.jsonl", [*real, *composites(holdout[:2], split="train", group="other")])
    done = in_shell("train", source, "-o", tmp_path / "run", *TINY, "--epochs", 1)
    assert done.code == 3
    assert all(part in done.err for part in ("made/0.jpg", holdout[0]["id"], "in test"))


def test_train_does_not_split_them_itself(drawn, tmp_path):
    real = [{k: v for k, v in r.items() if k != "split"} for r in images(drawn, ["train"])]
    source = write(tmp_path / "in.jsonl", [*real, *composites(real[:2])])
    for more in ((), ("--folds", 3)):
        done = in_shell("train", source, "-o", tmp_path / "run", *TINY, "--epochs", 1, *more)
        assert done.code == 3
        assert "is a composite" in done.err


def test_train_takes_them_where_they_are_allowed(drawn, tmp_path):
    real = images(drawn, ["train", "train", "val", "test"])
    made = composites([r for r in real if r["split"] == "train"][:2], split="test")
    source = write(tmp_path / "in.jsonl", [*real, *({**r, "group": "other"} for r in made)])
    done = in_shell("train", source, "-o", tmp_path / "run", *TINY, "--epochs", 1, ALLOW)
    assert done.code == 0, done.err
    assert "2 composites are in validation or test" in done.err
    refused = in_shell("evaluate", tmp_path / "run")
    assert refused.code == 3
    allowed = in_shell("evaluate", tmp_path / "run", ALLOW)
    assert allowed.code == 0
    assert "2 of 5 images are composites" in allowed.out
    assert json.loads(in_shell("evaluate", tmp_path / "run", ALLOW, "--json").out)["composites"] == 2


def predictions(splits, synthetic):
    return [
        {
            "schema": "wbctool.prediction/1",
            "id": str(k),
            "path": f"/{k}.png",
            "label": "ab"[k % 2],
            "split": split,
            "predicted": "a",
            "confidence": 0.6,
            "probabilities": {"a": 0.6, "b": 0.4},
            **({"synthetic": True} if k in synthetic else {}),
        }
        for k, split in enumerate(splits)
    ]


@pytest.mark.parametrize(
    ("where", "words", "code"),
    [
        (0, (), 0),  # in training, which is not evaluated
        (0, ("--split", "train"), 0),
        (0, ("--split", "all"), 3),
        (2, (), 3),
        (4, (), 3),
        (4, (ALLOW,), 0),
        (2, ("--split", "val"), 3),
        (4, ("--differential",), 3),
    ],
)
def test_evaluate_refuses_them(tmp_path, where, words, code):
    rows = predictions(["train", "train", "val", "val", "test", "test"], {where})
    done = in_shell("evaluate", write(tmp_path / "p.jsonl", rows), *words)
    assert done.code == code, done.err
    assert ("is a composite" in done.err) == (code == 3)
    assert ("composites: the figures" in done.out) == (ALLOW in words or (where == 0 and "train" in words))


def test_the_page_says_it(tmp_path):
    rows = predictions(["test"] * 4, {0})
    page = tmp_path / "page.html"
    assert in_shell("evaluate", write(tmp_path / "p.jsonl", rows), ALLOW, "--html", page).code == 0
    assert "1 of 4 images are composites" in page.read_text()
