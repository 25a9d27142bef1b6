"""A run as an ONNX file."""

import json

import cv2
import numpy as np
import pytest
from conftest import TINY, in_shell

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def probabilities(file, paths):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["wbctool.classes"])
    for path in paths:
        image = np.ascontiguousarray(cv2.imread(path)[..., ::-1])
        yield dict(zip(names, session.run(None, {"images": image[None]})[0][0].tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--attention", "cbam"), ("--side-heads", "covariance", "--symmetries", 8)])
def test_the_file_gives_the_probabilities_of_predict(cells, drawn, tmp_path, more):
    pytest.importorskip("onnx")
    done = in_shell("train", cells, "-o", tmp_path / "run", *TINY, "--epochs", 1, *more)
    assert done.code == 0, done.err
    done = in_shell("info", tmp_path / "run", "--onnx", tmp_path / "run.onnx")
    assert done.code == 0, done.err
    assert "within" in done.err
    rows = in_shell("predict", tmp_path / "run", drawn / "images", "--precision", "float32", "-q").records[:20]
    rows += in_shell("predict", tmp_path / "run", cells, "--precision", "float32", "-q").records[:20]
    for row, computed in zip(rows, probabilities(tmp_path / "run.onnx", [r["path"] for r in rows]), strict=True):
        assert computed == pytest.approx(row["probabilities"], abs=1e-4)


def test_a_folder_that_is_not_a_run_is_refused(cli, cells, tmp_path):
    done = cli("info", cells, "--onnx", tmp_path / "x.onnx")
    assert done.code == 2
    assert "is no run folder" in done.err
    assert not (tmp_path / "x.onnx").exists()
