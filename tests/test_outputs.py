"""Output names, whole files, output folders."""

import json
import os
import subprocess
import sys
from contextlib import suppress

import pytest

from wbctool.errors import ImageError, InputError, UsageProblem
from wbctool.pipeline.names import Names
from wbctool.pipeline.output_folder import OutputFolder, check_settings
from wbctool.pipeline.step import always_unchanged
from wbctool.records.storage import atomic


def test_a_name_is_the_path_without_suffix_and_a_clash_keeps_it():
    names = Names()
    assert [names.take(i) for i in ("d/a.jpg", "d/a.tif", "a.png")] == ["d/a", "d/a.tif", "a"]
    with pytest.raises(ImageError, match="two inputs"):
        names.take("d/a.tif")


@pytest.mark.parametrize("bad", ["../x.png", "/etc/passwd", "a/../../x", "..", "", "a\0b"])
def test_no_id_leads_out_of_the_output_folder(bad):
    with pytest.raises(ImageError):
        Names().take(bad)


def test_a_long_name_is_cut_and_stays_its_own():
    names = Names()
    first, second = names.take("x" * 250 + "1.png"), names.take("x" * 250 + "2.png")
    assert first != second
    assert max(len(first), len(second)) <= 200


def test_a_hidden_id_gives_a_file_that_is_seen():
    assert Names().take("a/.b.png") == "a/_b"


def test_an_atomic_file_is_whole_or_absent(tmp_path):
    with suppress(RuntimeError), atomic(tmp_path / "x", "w") as stream:
        stream.write("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic(tmp_path / "x", "w") as stream:
        stream.write("whole")
    assert (tmp_path / "x").read_text() == "whole"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o022) or 0o022)


def test_what_a_killed_writer_left_goes_with_the_next_and_living_writers_do_not_meet(tmp_path):
    dying = "import os, sys; from pathlib import Path; from wbctool.records.storage import atomic\n"
    dying += "with atomic(Path(sys.argv[1])) as stream: stream.write(b'half'); stream.flush(); os._exit(1)"
    subprocess.run([sys.executable, "-c", dying, tmp_path / "x"], check=False)
    assert [path.name[:9] for path in tmp_path.iterdir()] == [".partial-"]
    with atomic(tmp_path / "x") as first, atomic(tmp_path / "x") as second:
        first.write(b"first")
        second.write(b"second")
        assert len(list(tmp_path.iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"first"


def record(number, folder):
    return {"schema": "wbctool.image/1", "id": f"{number}.png", "path": str(folder / f"{number}.png")}


def test_a_killed_run_leaves_its_work_but_for_the_last_input(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.png").write_bytes(b"x")
    first = OutputFolder(tmp_path / "out", "segment", {"method": "stain"})
    for number in range(3):
        first.write(record(number, source))
    first._records._stream.write(b'{"torn')
    first._records._stream.close()  # as if killed: no finish
    again = OutputFolder(tmp_path / "out", "segment", {"method": "stain"})
    done = [again.finished(record(n, source), {f"{n}.png"}, always_unchanged) is not None for n in range(3)]
    assert done == [True, True, False]
    again._records._stream.close()
    third = OutputFolder(tmp_path / "out", "segment", {"method": "stain"})  # killed again before it wrote
    assert third.finished(record(0, source), {"0.png"}, always_unchanged) is not None


def test_two_commands_cannot_write_one_folder(tmp_path):
    first = OutputFolder(tmp_path / "out", "segment", {})
    with pytest.raises(InputError, match="another command"):
        OutputFolder(tmp_path / "out", "segment", {})
    first.finish()


def test_other_settings_are_refused_and_named(tmp_path):
    OutputFolder(tmp_path / "out", "crop", {"size": 224}).finish()
    with pytest.raises(UsageProblem, match="made with size 224, not with size 96"):
        OutputFolder(tmp_path / "out", "crop", {"size": 96})
    with pytest.raises(UsageProblem, match="wbctool crop"):
        OutputFolder(tmp_path / "out", "segment", {"size": 224})
    OutputFolder(tmp_path / "out", "segment", {"size": 96}, overwrite=True).finish()


def test_run_json_says_what_was_done(tmp_path):
    OutputFolder(tmp_path / "out", "crop", {"size": 96}).finish(counts={"records": 3})
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["command"], run["settings"], run["counts"], run["finished"]) == (
        "crop", {"size": 96}, {"records": 3}, True,
    )  # fmt: skip


def test_a_damaged_run_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json: damaged"):
        check_settings(tmp_path, "run*.json", {"command": "crop", "settings": {}})
