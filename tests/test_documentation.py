"""Every command line of the README and every example runs; the demo does what it says."""

import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import option_tables
import preloaded
import pytest
from conftest import contents, in_shell, read_records, server, write_yolo

from wbctool.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SMALL = "--weights none --backbone resnet26t --size 32 --epochs 2 --batch-size 8 --device cpu"
SETTINGS = {"effnetv2s-cbam-focal.sh": "REPEATS=2 NETWORKS=resnet50", "naturalize-table.sh": "SETS=419-pmy"}
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, drawn, experts):
    """A folder with `smears/`, `pbc/`, `experts/`, `expert-boxes/`, and a `wbctool` whose trainings are small."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(drawn / "images", place / "smears")
    shutil.copytree(drawn / "images", place / "pbc")
    shutil.copytree(experts, place / "experts")
    write_yolo(place / "expert-boxes", read_records(drawn / "truth" / "records.jsonl"))
    shutil.copy(next((drawn / "images").glob("*/*.jpg")), place / "reference.jpg")
    preloaded.write_client(place / "bin" / "wbctool", server(), SMALL.split())
    return place


def run(script, place):
    env = {**os.environ, "PATH": f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", f"set -eo pipefail\n{script}"], capture_output=True, text=True, cwd=place, env=env
    )


def test_every_command_has_its_page():
    for name in COMMANDS:
        assert f"\n### {name}\n" in README


def test_the_option_tables_are_current():
    message = "an option changed: run `uv run python tests/option_tables.py`"
    assert option_tables.with_tables(README) == README, message
    assert option_tables.completion_table() == option_tables.COMPLETION.read_text(), message


def test_every_command_line_of_the_readme_runs(workplace):
    for block in BLOCKS:
        if "pip install uv" in block or block.startswith("wbctool demo "):
            continue  # what runs the tests, and the test of the demo below
        if "jq" in block and not shutil.which("jq"):
            continue
        done = run(block, workplace)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert "Traceback" not in done.stderr


def test_the_python_of_the_readme_runs(workplace):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    tiny = '{"epochs": 1, "weights": "none", "backbone": "resnet10t", "size": 32, "batch_size": 8}'
    assert '{"epochs": 10}' in code
    script = workplace / "from_python.py"
    script.write_text(code.replace('{"epochs": 10}', tiny))
    done = run(f"python {script}", workplace)
    assert done.returncode == 0, done.stderr
    macro_f1, explained = done.stdout.split()
    assert 0 <= float(macro_f1) <= 1
    assert int(explained) == 8


def test_the_two_commands_of_the_readme_are_these():
    first = BLOCKS[0].splitlines()
    assert first[0].startswith("pip install uv && uv run wbctool demo -o demo ")
    assert first[1].startswith("pip install uv && uv run pytest ")
    assert "pip install --quiet uv && uv run pytest" in (ROOT / ".ci" / "run").read_text()


def _copies_of_originals(fields, folder):
    """Laid out as the public set whose copies are numbered: `TRAIN/MONOCYTE/_3_17.jpeg`."""
    for number, path in enumerate(sorted(fields.glob("*/*.jpg"))):
        place = folder / ("TEST" if number % 3 == 0 else "TRAIN") / path.parent.name.upper().replace("_", "")
        place.mkdir(parents=True, exist_ok=True)
        for copy in range(2):
            shutil.copy(path, place / f"_{number}_{copy}.jpeg")


def _with_subclasses(fields, folder):
    """Named as the PBC images are: the subclass before the number."""
    names = {"band": "BNE", "monocyte": "PMY", "lymphocyte": "LY", "neutrophil": "IG"}
    for path in sorted(fields.glob("*/*.jpg")):
        if path.parent.name in names:
            for copy in "ab":  # enough for a tenth to test
                place = folder / path.parent.name / f"{names[path.parent.name]}_{path.stem}{copy}.jpg"
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place)


def test_examples_run(workplace):
    scripts = sorted((ROOT / "examples").glob("*.sh"))
    assert all(script.stat().st_mode & stat.S_IXUSR for script in scripts)
    lines = {
        "prepare-dataset.sh": r"smears prepared 's(\d+)_'",
        "eight-configurations.sh": "eight.jsonl eight resnet26t",
        "random-or-by-original.sh": "originals leak",
        "colour-spaces.sh": "smears experts compared",
        "naturalize-sets.sh": "eleven sets 419-pmy",
        "mobilenetv3-xgboost.sh": "thirds.jsonl trees",
        "two-phases.sh": "smears phases --frozen-epochs 1",
        "effnetv2s-cbam-focal.sh": "smears focal reference.jpg --ce-epochs 1",
        "naturalize-table.sh": "eleven sets",
        "jq-recipes.sh": "smears phases/head recipes",
        "torchrun.sh": f"thirds.jsonl torchrun 2 {SMALL} --recipe best:scratch",
        "gnu-parallel.sh": "smears parallel 2",
        "dask.sh": "smears dask 2",
        "slurm-array.sh": "smears slurm",
    }
    assert sorted(lines) == sorted(script.name for script in scripts)
    needs = {"jq-recipes.sh": "jq", "torchrun.sh": "torchrun", "gnu-parallel.sh": "parallel", "dask.sh": "dask"}
    for name, program in needs.items():
        if not shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"):
            print(f"{name} is not run: there is no {program} on this machine")
            del lines[name]
    shown = {}
    _copies_of_originals(workplace / "smears", workplace / "originals")
    _with_subclasses(workplace / "smears", workplace / "eleven")
    assert run("wbctool split smears --ratio 2/1/1 > eight.jsonl", workplace).returncode == 0
    first = ["prepare-dataset.sh", "two-phases.sh", "naturalize-sets.sh"]
    start = time.monotonic()
    for name in [*first, *sorted(set(lines) - {*first, "slurm-array.sh"})]:
        done = run(f"{SETTINGS.get(name, '')} {ROOT / 'examples' / name} {lines[name]}", workplace)
        assert done.returncode == 0, done.stderr
        shown[name] = done.stdout
        print(f"{name}: {time.monotonic() - start:.0f} s")
        if name == "prepare-dataset.sh":
            assert run("wbctool split prepared/cells --ratio 1/1/1 > thirds.jsonl", workplace).returncode == 0
    for parts in ("", "+CW", "+CBAM+CW+FL"):
        assert (workplace / "eight" / f"resnet26t{parts}" / "model.json").exists()
    assert "eight/resnet26t+CBAM" in shown["eight-configurations.sh"]
    assert sum(1 for _ in (workplace / "sets" / "419-pmy.jsonl").open()) == 592
    assert "IG_" not in (workplace / "sets" / "split.jsonl").read_text()
    assert all(f" {name} " in shown["mobilenetv3-xgboost.sh"] for name in ("network", "morphology", "mended"))
    assert "leak/by-original" in shown["random-or-by-original.sh"]
    assert all(f" {method} " in shown["colour-spaces.sh"] for method in ("stain", "hed", "hsv", "watershed"))
    assert all(f"phases/{name}" in shown["two-phases.sh"] for name in ("head", "two-phases"))
    assert re.search(r"(?m)^ focal/cbam-focal .*\n +±\d", shown["effnetv2s-cbam-focal.sh"])
    assert all(f"sets/run-{name}" in shown["naturalize-table.sh"] for name in ("real", "419-pmy"))
    if "jq-recipes.sh" in lines:
        assert re.search(r'"macro_f1":', shown["jq-recipes.sh"])
    for job in (1, 2):  # Slurm sets these; where it is not there, they are set for it
        given = f"SLURM_ARRAY_TASK_ID={job} SLURM_ARRAY_TASK_COUNT=2 SLURM_CPUS_PER_TASK=1"
        done = run(f"{given} {ROOT / 'examples' / 'slurm-array.sh'} {lines['slurm-array.sh']}", workplace)
        assert done.returncode == 0, done.stderr
    assert "48" in run("wbctool info slurm", workplace).stdout
    if shutil.which("sbatch"):
        assert run(f"sbatch --test-only {ROOT / 'examples' / 'slurm-array.sh'} smears slurm", workplace).returncode == 0


@pytest.mark.slow
def test_the_demo_shows_its_commands_and_ends_in_the_same_figures(tmp_path):
    start = time.monotonic()
    first = in_shell("demo", "-o", "demo", cwd=tmp_path)
    seconds = time.monotonic() - start
    assert first.code == 0, first.err
    print(f"demo: {seconds:.0f} s")
    for name in ("segment", "split", "crop", "train", "predict", "evaluate"):
        assert f"\n$ wbctool {name} " in first.out
    assert "Look at\n" in first.out
    assert (tmp_path / "demo" / "run" / "curves.png").exists()
    figures = first.out[first.out.index("accuracy") : first.out.index("Look at")]
    accuracy = float(re.search(r"^accuracy +([\d.]+)", figures)[1])
    assert accuracy > 0.8
    once = contents(tmp_path / "demo")
    (tmp_path / "demo" / "predictions.jsonl").unlink()
    second = in_shell("demo", "-o", "demo", cwd=tmp_path)
    assert second.out == first.out
    assert contents(tmp_path / "demo") == once


def test_the_project_names_no_registry_and_no_path_of_a_machine():
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("no git checkout")
    words = ("pypi" + ".org", "python" + "hosted", "/ro" + "ot/", "/wo" + "rk/")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".jpg", ".png") or not path.is_file():
            continue
        content = path.read_bytes()
        assert not [word for word in words if word.encode() in content], name
    assert "uv.lock" not in listed.stdout
