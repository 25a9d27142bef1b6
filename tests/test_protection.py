"""No command replaces what it reads, whatever its options, and no message suggests it."""

import json
import shutil

import pytest
from conftest import contents, read_records, write_records


@pytest.fixture
def fields(masks, tmp_path):
    """An output folder of `segment` that a test may damage."""
    shutil.copytree(masks, tmp_path / "masks")
    return tmp_path / "masks"


def refused(done, code=2):
    assert done.code == code, done.err
    assert "nothing is lost" in done.err
    assert "--overwrite" not in done.err


@pytest.mark.parametrize("given", ["masks", "masks/records.jsonl", "link", "link.jsonl"])
@pytest.mark.parametrize("out", ["masks/records.jsonl", "link/records.jsonl", "link.jsonl", "masks/run.json"])
def test_split_does_not_replace_its_input(cli, fields, tmp_path, given, out):
    (tmp_path / "link").symlink_to(fields)
    (tmp_path / "link.jsonl").symlink_to(fields / "records.jsonl")
    if out == "masks/run.json" and given.endswith(".jsonl"):
        pytest.skip("the folder is not an input")
    before = contents(tmp_path, leave=())
    refused(cli("split", tmp_path / given, "-o", tmp_path / out))
    assert contents(tmp_path, leave=()) == before


def test_split_does_not_replace_an_image_or_its_table_of_labels(cli, drawn, tmp_path):
    shutil.copytree(drawn / "images" / "band", tmp_path / "band")
    image = next((tmp_path / "band").iterdir())
    table = tmp_path / "labels.csv"
    table.write_text(f"image,label\n{image.name},EO\n")
    before = contents(tmp_path)
    refused(cli("split", tmp_path / "band", "-o", image))
    refused(cli("split", tmp_path / "band", "--labels", table, "-o", table))
    assert contents(tmp_path) == before


def test_split_replaces_its_own_earlier_output_beside_the_input(cli, fields):
    for seed in (0, 1):
        assert cli("split", fields, "-o", fields / "split.jsonl", "--seed", seed, "-q").code == 0


IN_PLACE = {
    "segment": "segment masks -o masks --overwrite",
    "crop": "crop masks -o masks --overwrite",
    "crop of the folder above": "crop masks -o . --overwrite",
    "crop of a link": "crop link -o masks --overwrite",
    "crop of a file": "crop masks/records.jsonl -o masks --overwrite",
    "enhance": "enhance masks -o link --clahe --overwrite",
    "predict": "predict {run} masks -o masks/records.jsonl --overwrite",
    "explain": "explain {run} masks -o masks --overwrite --split all",
    "train": "train masks -o masks --overwrite --device cpu",
    "xgboost-fuse": "xgboost-fuse {run} masks -o masks --morphology --overwrite",
    "xgboost-fuse into a run": "xgboost-fuse {copy} masks -o {copy} --morphology --overwrite",
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_no_command_writes_into_what_it_reads(cli, fields, run_folder, tmp_path, monkeypatch, name):
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "link").symlink_to(fields)
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path, leave=())
    refused(cli(*IN_PLACE[name].format(run=run_folder, copy=tmp_path / "run").split()))
    assert contents(tmp_path, leave=()) == before


def test_records_from_a_pipe_are_not_written_into_their_own_folder(cli, fields):
    records = [{**r, "path": str((fields / r["path"]).resolve()), "mask": str(fields / r["mask"])}
               for r in read_records(fields / "records.jsonl")]  # fmt: skip
    before = contents(fields, leave=())
    refused(cli("crop", "-", "-o", fields, "--overwrite", stdin="".join(json.dumps(r) + "\n" for r in records)))
    assert contents(fields, leave=()) == before


@pytest.mark.parametrize("option", ["-o", "--pool"])
@pytest.mark.parametrize("out", ["masks", "link", "."])
@pytest.mark.parametrize("records", ["records.jsonl", "records-1-of-1.jsonl"])
def test_naturalize_does_not_write_into_its_input(cli, fields, tmp_path, option, out, records):
    (tmp_path / "link").symlink_to(fields)
    (fields / "records.jsonl").rename(fields / records)
    before = contents(tmp_path, leave=())
    outputs = {"-o": tmp_path / "out", option: tmp_path / out}
    words = [word for pair in outputs.items() for word in pair]
    refused(cli("naturalize", fields, *words, "--add", 1, "--overwrite", "--jobs", 1))
    assert contents(tmp_path, leave=()) == before


def test_naturalize_does_not_write_where_images_or_masks_of_its_records_are(cli, fields, tmp_path):
    records = read_records(fields / "records.jsonl")
    full = [{**r, "path": str((fields / r["path"]).resolve()), "mask": str(fields / r["mask"])} for r in records]
    write_records(tmp_path / "split.jsonl", full)
    refused(cli("naturalize", tmp_path / "split.jsonl", "-o", fields, "--add", 1, "--overwrite", "--jobs", 1))
    refused(cli("naturalize", tmp_path / "split.jsonl", "-o", tmp_path, "--add", 0, "--jobs", 1))


def test_a_record_file_beside_the_output_is_in_no_danger(cli, split_fields, tmp_path):
    file = write_records(tmp_path / "split.jsonl", split_fields)
    assert cli("naturalize", file, "-o", tmp_path, "--add", 0, "--jobs", 1, "-q").code == 0
    refused(cli("naturalize", write_records(tmp_path / "records.jsonl", split_fields), "-o", tmp_path, "--add", 0))


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "predictions.jsonl"])
def test_info_does_not_replace_files_of_the_run(cli, run_folder, tmp_path, name):
    shutil.copytree(run_folder, tmp_path / "run")
    before = contents(tmp_path, leave=())
    refused(cli("info", tmp_path / "run", "--onnx", tmp_path / "run" / name))
    assert contents(tmp_path, leave=()) == before
