"""A segmentation method is added by one module: help, completion, validation, runs and errors know it from there."""

import os
import subprocess
import sys

import pytest
from conftest import Result

MODULE = '''"""Nuclei where green is low."""

from wbctool.pipeline.parameters import parameter
from wbctool.segmentation.method import Image, Method, Objects, Splitting


class DarkGreenParameters(Splitting):
    """The threshold."""

    darkness: int = parameter(90, "Highest level of green.", low=0, high=255)


def find(image: Image, parameters: DarkGreenParameters) -> Objects:
    """Find nuclei."""
    from wbctool.segmentation.thresholds import nuclei_of

    return nuclei_of((image[..., 1] <= parameters.darkness).astype("uint8"), 80.0, parameters)


DARK_GREEN = Method("dark-green", "pixels of little green", "an example", find, DarkGreenParameters)
'''

START = """import sys
import wbctool.segmentation.methods
from wbctool.cli import main
wbctool.segmentation.methods.__path__.append(sys.argv.pop(1))
main()
"""


@pytest.fixture(scope="module")
def wbctool(tmp_path_factory):
    """Run `wbctool` with a further module among its methods."""
    folder = tmp_path_factory.mktemp("methods")
    (folder / "dark_green.py").write_text(MODULE)

    def run(*words, **env):
        command = [sys.executable, "-c", START, str(folder), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
        return Result(done.returncode, done.stdout, done.stderr)

    return run


def test_help_shows_the_method_and_its_parameter(wbctool):
    done = wbctool("segment", "--help", COLUMNS="120")
    assert "dark-green" in done.out.split("--method")[1].split("--as-published")[0]
    (line,) = (line for line in done.out.splitlines() if "--darkness" in line)
    assert "dark-green: Highest level of green. (90)" in line


def test_completion_offers_the_method_and_its_parameter(wbctool):
    def complete(words):
        env = {"_WBCTOOL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return wbctool(**env).out.split()

    assert complete("wbctool segment --method dar") == ["dark-green"]
    assert complete("wbctool segment --dar") == ["--darkness"]


def test_its_parameter_is_validated(wbctool, drawn, tmp_path):
    for words, message in (
        (("--method", "dark-green", "--darkness", 256), "--darkness 256: give a whole number from 0 to 255"),
        (("--method", "dark-green", "--theta", 0.2), "--theta: is not for --method dark-green"),
        (("--method", "hsv", "--darkness", 80), "--darkness: is not for --method hsv"),
        (
            ("--method", "dark-gren"),
            "--method dark-gren: unknown segmentation method; choose from cyan-otsu, dark-green",
        ),
    ):
        done = wbctool("segment", drawn / "images", "-o", tmp_path / "out", *words)
        assert (done.code, message in done.err) == (2, True), done.err
    assert not (tmp_path / "out").exists()


def test_a_run_records_the_method_and_what_differs_from_its_defaults(wbctool, drawn, tmp_path):
    words = ("segment", drawn / "images" / "band", "-o", tmp_path / "out", "--jobs", 1, "--method", "dark-green")
    done = wbctool(*words, "--darkness", 100)
    assert done.code == 0, done.err
    assert {record["method"] for record in done.records} == {"dark-green"}
    assert all(record["constants"] == {"darkness": 100} and record["cells"] for record in done.records)
    assert "done before" in wbctool(*words, "--darkness", 100).err
    refused = wbctool(*words)
    assert (refused.code, "darkness" in refused.err) == (2, True)
