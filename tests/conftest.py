"""What the tests share: drawn smears, real data where there is any, and ways to run the command."""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import preloaded
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: a torch that takes all of them slows every other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).resolve()
DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", HERE.parents[2] / "shared" / "data"))
PBC_REGEX = "^(?P<label>BA|BNE|EO|ERB|LY|MMY|MO|MY|PLATELET|PMY|SNE)_"


def pytest_collection_modifyitems(items):
    gpu = any("gpu" in item.keywords for item in items) and _has_gpu()
    for item in items:
        if "data" in item.keywords and not DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason="no real images: set WBCTOOL_TEST_DATA"))
        if "gpu" in item.keywords and not gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def campaign(record_property):
    """Notes how often something was tried; the counts are printed at the end of the run."""
    return lambda what, count: record_property("campaign", (what, count))


def pytest_terminal_summary(terminalreporter):
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    counts = Counter()
    for report in reports:
        for key, value in report.user_properties:
            if key == "campaign":
                counts[value[0]] += value[1]
    if counts:
        terminalreporter.section("fault campaign")
        for what, count in sorted(counts.items()):
            terminalreporter.line(f"{count:>7,}  {what}")


def _has_gpu():
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def data():
    return DATA


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def records(self):
        return [json.loads(line) for line in self.out.splitlines()]


_AT_THE_END = ExitStack()


@cache
def server():
    """The socket of a process that has imported torch, whose forks run commands; started when first asked for."""
    return _AT_THE_END.enter_context(preloaded.served())


@cache
def preloaded_wbctool():
    """The path of a program that is as `wbctool` is, and need not import torch again."""
    folder = Path(_AT_THE_END.enter_context(tempfile.TemporaryDirectory()))
    return str(preloaded.write_client(folder / "wbctool", server()))


def pytest_unconfigure():
    _AT_THE_END.close()


def in_shell(*words, stdin=None, cwd=None, env=None):
    """Run `wbctool` as a process of its own, both streams in pipes."""
    done = subprocess.run(
        [preloaded_wbctool(), *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cli():
    """Run `wbctool` in this process, which saves importing torch again; both streams as in a pipe."""

    def run(*words, stdin=""):
        from wbctool.cli import _run

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            code = _run([str(word) for word in words], debug=False)
        return Result(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A small drawn set: 8 classes, 6 fields each on 3 slides; `images/` and `truth/`."""
    from wbctool.drawing import write_set

    folder = tmp_path_factory.mktemp("drawn")
    write_set(folder, per_class=6, slides=3, size=160)
    return folder


@pytest.fixture(scope="session")
def masks(drawn, tmp_path_factory):
    """`segment` and `split` of the drawn set; `split.jsonl` inside."""
    out = tmp_path_factory.mktemp("masks") / "masks"
    done = in_shell("segment", drawn / "images", "-o", out, "--jobs", 1)
    assert done.code == 0, done.err
    split = in_shell("split", out, "--ratio", "1/1/1", "--group-regex", r"s(\d+)_")
    (out.parent / "split.jsonl").write_text(split.out)
    return out


@pytest.fixture(scope="session")
def experts(drawn, tmp_path_factory):
    """The drawn truth as experts give it: nucleus 255, cytoplasm 130, red cells 60, platelets 30; one is missing."""
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("experts")
    records = [json.loads(line) for line in (drawn / "truth" / "records.jsonl").read_text().splitlines()]
    for record in records[1:]:
        labels = cv2.imread(str(drawn / "truth" / record["mask"]), cv2.IMREAD_UNCHANGED)
        grey = np.zeros(labels.shape, np.uint8)
        for cell in record["cells"]:
            grey[labels == cell["value"]] = {"wbc": 130, "rbc": 60, "platelet": 30}[cell["kind"]]
            if "nucleus" in cell:
                grey[labels == cell["nucleus"]["value"]] = 255
        path = (folder / record["id"]).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), grey)
    return folder


@pytest.fixture(scope="session")
def cells(masks, tmp_path_factory):
    """`crop` of the split drawn set, at 48 pixels."""
    out = tmp_path_factory.mktemp("cells") / "cells"
    done = in_shell("crop", masks.parent / "split.jsonl", "-o", out, "--size", 48, "--jobs", 1)
    assert done.code == 0, done.err
    return out


TINY = ("--backbone", "resnet10t", "--weights", "none", "--size", "48", "--batch-size", "8", "--device", "cpu")


@pytest.fixture(scope="session")
def run_folder(cells, tmp_path_factory):
    """A run trained for two epochs on the drawn cells."""
    out = tmp_path_factory.mktemp("runs") / "a"
    done = in_shell("train", cells, "-o", out, *TINY, "--epochs", 2, "--frozen-epochs", 1)
    assert done.code == 0, done.err
    return out


def contents(folder, leave=("run.json",)):
    """Bytes of all files under a folder; of records without their `seconds`."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in leave:
            raw = path.read_bytes()
            if path.name.endswith(".jsonl"):
                rows = [json.loads(line) for line in raw.splitlines()]
                raw = json.dumps([{k: v for k, v in row.items() if k != "seconds"} for row in rows]).encode()
            files[str(path.relative_to(folder))] = raw
    return files


def read_records(path):
    """The records of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_yolo(folder, records):
    """Write the boxes of mask records as YOLO does: classes 0 white cells, 1 red cells, 2 platelets."""
    for record in records:
        width, height = record["size"]
        lines = []
        for cell in record["cells"]:
            x, y, w, h = cell["bbox"]
            number = ("wbc", "rbc", "platelet").index(cell["kind"])
            lines.append(
                f"{number} {(x + w / 2) / width:.8f} {(y + h / 2) / height:.8f} {w / width:.8f} {h / height:.8f}"
            )
        file = (folder / record["id"]).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines))
    return folder


def write_records(path, records):
    """A file of records; its path."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="session")
def split_fields(masks):
    """The drawn masks, a third of the slides in each split; paths from the root."""
    return [r for r in read_records(masks.parent / "split.jsonl") if "cells" in r]


@pytest.fixture(scope="session")
def composites(split_fields, tmp_path_factory):
    """`natural`, four of each class, and its pool."""
    place = tmp_path_factory.mktemp("naturalize")
    write_records(place / "split.jsonl", split_fields)
    done = in_shell("naturalize", place / "split.jsonl", "-o", place / "out", "--add", 4, "--jobs", 1)
    assert done.code == 0, done.err
    return place
