"""The record contract."""

import json

import jsonschema
import pytest
from conftest import in_shell
from hypothesis import given
from hypothesis import strategies as st

from wbctool.errors import InputError
from wbctool.records import MODELS, from_line, has_image, to_line, with_absolute_paths, with_relative_paths

EXAMPLES = {
    "image": '{"schema":"wbctool.image/1","id":"a/EO_1.jpg","path":"/d/a/EO_1.jpg","label":"EO","group":"s7",'
    '"split":"train"}',
    "mask": '{"schema":"wbctool.mask/1","id":"a/EO_1.jpg","path":"/d/EO_1.jpg","label":"EO","group":"s7",'
    '"split":"train","size":[360,363],"method":"stain","seconds":0.004,"mask":"/m/EO_1.png","cells":['
    '{"value":1,"kind":"wbc","bbox":[120,97,131,129],"area":11870,"centroid":[184.2,160.9],"edge":false,'
    '"nucleus":{"value":2,"area":5020}},{"value":3,"kind":"rbc","bbox":[0,12,61,70],"area":3100,'
    '"centroid":[28.0,47.5],"edge":true}]}',
    "cell": '{"schema":"wbctool.cell/1","id":"a/EO_1.jpg#1","path":"/c/EO_1_1.png","mask":"/c/masks/EO_1_1.png",'
    '"source":"/d/EO_1.jpg","bbox":[104,81,163,163],"value":1,"kind":"wbc","nucleus":{"value":2,"area":5020},'
    '"crop":{"method":"roi","margin":0.3,"size":224},"label":"EO","group":"s7","split":"train"}',
    "prediction": '{"schema":"wbctool.prediction/1","id":"x","path":"/x.png","run":"runs/a","label":"EO",'
    '"group":"s7","split":"test","predicted":"SNE","confidence":0.61,"uncertain":true,"temperature":1.7,'
    '"probabilities":{"EO":0.39,"SNE":0.61}}',
    "error": '{"schema":"wbctool.error/1","id":"x","path":"/x.jpg","error":"truncated JPEG"}',
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_published_examples_are_valid(name):
    record = from_line(EXAMPLES[name], "line 1")
    assert record == json.loads(EXAMPLES[name])
    assert to_line(record) == EXAMPLES[name].replace("28.0", "28.0")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_printed_schema_accepts_the_example_and_refuses_it_without_an_id(name):
    done = in_shell("--schema", name)
    schema = json.loads(done.out)
    record = json.loads(EXAMPLES[name])
    jsonschema.validate(record, schema)
    del record["id"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, schema)


def test_unknown_keys_are_allowed_and_kept():
    record = from_line(EXAMPLES["image"][:-1] + ',"patient":7,"note":{"a":[1]}}', "line 1")
    assert record["patient"] == 7
    assert record["note"] == {"a": [1]}


@pytest.mark.parametrize(
    ("line", "key_word"),
    [
        ("{", "not JSON"),
        ("[]", "a list"),
        ("{}", "unknown schema"),
        ('{"schema":"wbctool.image/1","id":"a"}', "path"),
        ('{"schema":"wbctool.image/1","id":"a","path":"b","split":"dev"}', "split"),
        ('{"schema":"wbctool.image/1","id":"a\\u0000","path":"b"}', "id"),
        ('{"schema":"wbctool.mask/1","id":"a","path":"b"}', "cells"),
        ('{"schema":"wbctool.image/1","id":"a","path":"\\ud800"}', ""),
        (
            '{"schema":"wbctool.prediction/1","id":"a","path":"b","predicted":"x","confidence":7,"probabilities":{}}',
            "conf",
        ),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_fault(line, key_word):
    with pytest.raises(InputError) as caught:
        from_line(line, "f.jsonl line 3")
    assert str(caught.value).startswith("f.jsonl line 3: ")
    assert key_word in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_a_mutated_line_is_read_or_refused_and_never_crashes(name, data):
    raw = list(EXAMPLES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(raw) - 1))
        raw[position] = data.draw(st.characters())
    try:
        record = from_line("".join(raw), "line 1")
    except InputError as error:
        assert str(error).startswith("line 1: ")  # noqa: PT017
    else:
        assert record["schema"] in MODELS


def test_paths_are_relative_in_a_folder_and_absolute_outside():
    record = json.loads(EXAMPLES["cell"])
    inside = with_relative_paths(record, "/c")
    assert (inside["path"], inside["mask"], inside["source"]) == ("EO_1_1.png", "masks/EO_1_1.png", "../d/EO_1.jpg")
    assert with_absolute_paths(inside, "/c") == record


def test_a_field_in_which_crop_found_nothing_has_no_image_for_a_model():
    mask = json.loads(EXAMPLES["mask"])
    assert has_image(mask)
    assert has_image({**mask, "cells": []})
    assert not has_image({**mask, "cells": [], "crop": {"method": "roi"}})
