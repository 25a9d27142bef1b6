"""The command line: help, what is imported, errors and exit codes, completion."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import in_shell
from typer.completion import get_completion_script

from wbctool import __version__
from wbctool.cli import COMMANDS

ROOT = Path(__file__).parents[1]


def test_the_help_lists_every_command_in_pipeline_order():
    done = in_shell("--help")
    assert (done.code, done.err) == (0, "")
    places = [done.out.index(f"\n {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_a_screen_and_shows_an_example(name):
    done = in_shell(name, "--help", env={"COLUMNS": "80"})
    assert (done.code, done.err) == (0, "")
    assert f"Example:  wbctool {name}" in done.out or f"wbctool {name} " in done.out.split("Example:")[1]
    assert len(done.out.splitlines()) <= (120 if name == "train" else 72)
    assert COMMANDS[name].split()[0] in done.out


def test_version_and_no_arguments():
    assert in_shell("--version").out == f"wbctool {__version__}\n"
    bare = in_shell()
    assert bare.code == 2
    assert "Commands" in bare.out + bare.err


HEAVY = ("torch", "timm", "torchvision", "kornia", "sklearn", "matplotlib", "skimage", "xgboost")


def imported(*words, env=None):
    code = (
        "import sys\nfrom wbctool.cli import _run\n"
        f"code = _run({list(map(str, words))!r}, False)\n"
        f"print(*[m for m in {(*HEAVY, 'cv2', 'numpy', 'pydantic')!r} if m in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split()) if done.stderr.strip() else set()


def test_help_and_completion_import_nothing_heavy():
    assert imported("--help") == set()
    for name in COMMANDS:
        assert imported(name, "--help") & {*HEAVY, "cv2", "numpy"} == set()
    complete = {"_WBCTOOL_COMPLETE": "complete_bash", "COMP_WORDS": "wbctool segment --me", "COMP_CWORD": "2"}
    code = "import sys, wbctool.cli as c\nsys.argv=['wbctool']\ntry: c.main()\nexcept SystemExit: pass\n"
    code += f"print([m for m in {(*HEAVY, 'cv2', 'numpy', 'rich')!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **complete})
    assert done.stdout.split() == ["--method", "[]"]


def test_segment_split_crop_naturalize_and_evaluate_import_neither_torch_nor_timm(drawn, masks, run_folder, tmp_path):
    torch = {"torch", "timm", "torchvision", "kornia"}
    assert not imported("segment", drawn / "images" / "band", "-o", tmp_path / "m", "-q") & torch
    assert not imported("split", masks, "-q") & torch
    assert not imported("crop", masks, "-o", tmp_path / "c", "--size", "16", "-q") & torch
    assert not imported("evaluate", run_folder, "-q") & torch
    split = masks.parent / "split.jsonl"
    assert not imported("naturalize", split, "-o", tmp_path / "n", "--add", "1", "--jobs", "1", "-q") & torch


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nope"], 2, "nope"),
        (["segment"], 2, "wbctool segment --help"),
        (["segment", "gone/", "-o", "out"], 3, "gone/: no such file or folder"),
        (["segment", ".", "-o", "out"], 3, "no images or records found"),
        (["segment", ".", "-o", "out", "--method", "x"], 2, "choose from cyan-otsu"),
        (["segment", ".", "-o", "out", "--shard", "3/2"], 2, "--shard 3/2"),
        (["segment", ".", "-o", "out", "--jobs", "-1"], 2, "--jobs"),
        (["crop", "gone.jsonl", "-o", "out"], 3, "gone.jsonl"),
        (["split", ".", "--ratio", "x"], 2, "--ratio x"),
        (["split", "."], 3, "no images or records"),
        (["train", ".", "-o", "out"], 3, "no labelled image"),
        (["predict", "."], 2, "wbctool predict RUN"),
        (["predict", "gone", "."], 3, "no images or records found"),
        (["evaluate", "gone"], 3, "gone: no such file or folder"),
        (["evaluate", ".", "--split", "dev"], 2, "--split dev"),
        (["info", "gone"], 3, "gone"),
        (["--schema", "x"], 2, "image, mask, cell"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(tmp_path, words, code, said):
    done = in_shell(*words, cwd=tmp_path)
    assert done.code == code
    assert done.out == ""
    assert said in done.err
    assert done.err.startswith("wbctool: ")
    assert len(done.err.splitlines()) == 1
    assert "Traceback" not in done.err


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path):
    for words in (["--debug", "evaluate", "gone"], ["evaluate", "gone", "--debug"]):
        done = in_shell(*words, cwd=tmp_path)
        assert done.code == 3
        assert "Traceback" in done.err


def test_an_output_that_cannot_be_written_is_named(drawn, tmp_path):
    (tmp_path / "file").write_text("x")
    done = in_shell("segment", drawn / "images", "-o", tmp_path / "file")
    assert done.code == 3
    assert "is a file" in done.err


@pytest.mark.parametrize(("shell", "name"), [("bash", "wbctool.bash"), ("zsh", "_wbctool"), ("fish", "wbctool.fish")])
def test_the_completion_scripts_are_current(shell, name):
    script = get_completion_script(prog_name="wbctool", complete_var="_WBCTOOL_COMPLETE", shell=shell)
    assert (ROOT / "completions" / name).read_text() == script + "\n"


def complete(words, cwd=None):
    env = {"_WBCTOOL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return in_shell(env=env, cwd=cwd).out.split()


def test_completion_offers_commands_and_options():
    assert complete("wbctool s") == ["segment", "split"]
    assert sorted(complete("wbctool crop --ma")) == ["--map", "--margin"]


def test_completion_offers_methods_recipes_backbones_and_choices():
    from wbctool.explaining import METHODS as maps
    from wbctool.segmentation import METHODS as masks
    from wbctool.training.recipe_files import recipe_names

    assert complete("wbctool segment --method ") == masks.names()
    assert complete("wbctool explain runs/a cells --method ") == maps.names()
    assert complete("wbctool train --recipe ") == recipe_names()
    assert complete("wbctool train --attention ") == ["none", "cbam"]
    assert complete("wbctool crop --kind w") == ["wbc"]
    assert complete("wbctool predict runs/a --device c") == ["cpu", "cuda"]


def test_completion_offers_every_backbone_of_timm():
    import timm

    found = complete("wbctool train --backbone ")
    assert set(timm.list_models()) <= set(found)
    assert all(timm.is_model(name) for name in found if name != "custom-cnn")
    assert complete("wbctool train --backbone mobilenetv2_1") == [
        "mobilenetv2_100",
        "mobilenetv2_110d",
        "mobilenetv2_120d",
        "mobilenetv2_140",
    ]


def test_completion_offers_run_folders_and_leaves_the_rest_to_the_shell(tmp_path):
    for name in ("runs/a", "runs/b", "cv/fold-1", "cells/x", "deep/er/and/deeper", ".hidden/run"):
        (tmp_path / name).mkdir(parents=True)
        if name != "cells/x":
            (tmp_path / name / "model.json").touch()
    assert complete("wbctool predict ", tmp_path) == ["cv/fold-1", "runs/a", "runs/b"]
    assert complete("wbctool evaluate runs/a r", tmp_path) == ["runs/a", "runs/b"]
    assert complete("wbctool info runs/", tmp_path) == ["runs/a", "runs/b"]
    assert complete(f"wbctool explain {tmp_path}/c", tmp_path) == [f"{tmp_path}/cv/fold-1"]
    assert complete("wbctool predict runs/a cel", tmp_path) == []  # files


def test_values_are_completed_without_importing_what_they_name():
    code = (
        "import sys, wbctool.cli as c\nsys.argv=['wbctool']\ntry: c.main()\nexcept SystemExit: pass\n"
        f"print('IMPORTED', *[m for m in {(*HEAVY, 'cv2', 'numpy', 'rich')!r} if m in sys.modules])"
    )
    for words in ("segment --method ", "explain r c --method ", "train --recipe ", "train --backbone ", "predict "):
        env = {"_WBCTOOL_COMPLETE": "complete_bash", "COMP_WORDS": f"wbctool {words}"}
        env["COMP_CWORD"] = str(env["COMP_WORDS"].count(" "))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env})
        assert done.stdout.splitlines()[-1] == "IMPORTED", words


BASH = """
source {script}
COMP_WORDS=(wbctool segment --method cy) COMP_CWORD=3
_wbctool_completion wbctool
echo "${{COMPREPLY[*]}}"
"""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_scripts_work_in_their_shell(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} on this machine")
    (tmp_path / "wbctool").write_text(f'#!/bin/sh\nexec {sys.executable} -m wbctool "$@"\n')
    (tmp_path / "wbctool").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    if shell == "bash":
        line = BASH.format(script=ROOT / "completions" / "wbctool.bash")
    elif shell == "fish":
        line = f'source {ROOT / "completions" / "wbctool.fish"}; complete -C "wbctool segment --method cy"'
    else:  # zsh completes in its line editor alone: that the script can be read is what is seen here
        script = ROOT / "completions" / "_wbctool"
        line = f"autoload -U compinit; compinit -u -d {tmp_path}/dump; source {script} && echo cyan-otsu"
    done = subprocess.run([shell, "-c", line], capture_output=True, text=True, env=env)
    assert done.stdout.split() == ["cyan-otsu"], done.stderr
