"""The page that stands alone, and the plots."""

import http.server
import json
import re
import shutil
import subprocess
import threading
from html import unescape

import cv2
import numpy as np
import pytest
from conftest import in_shell
from test_evaluate import lines, prediction

from wbctool.evaluation.document import value_text
from wbctool.statistics.metrics import metrics_of

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
EVIL = '<script>alert("x")</script>&$m$'


def evil(folder):
    path = folder / f"<b>{'x' * 20}&.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    return [
        {**prediction(i, EVIL if i % 3 else "B", "B"), "id": f"<img src=x>{i}", "path": str(path), "run": "<i>run</i>",
         "probabilities": {"B": 0.75, EVIL: 0.25}}
        for i in range(12)
    ]  # fmt: skip


def test_the_page_escapes_and_holds_all_it_shows(cli, tmp_path):
    done = cli("evaluate", "-", "--html", tmp_path / "p.html", stdin=lines(*evil(tmp_path)))
    assert done.code == 0
    assert "p.html" in done.err
    page = (tmp_path / "p.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert page.count('src="data:image/jpeg;base64,') == 8
    assert page.count('src="data:image/svg+xml;base64,') == 4
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "default-src 'none'" in page


def test_the_page_and_the_terminal_show_the_same_report(cli, run_folder, tmp_path):
    words = ("evaluate", run_folder, "--html", tmp_path / "p.html", "--threshold", 0.2, "--audit", "--json", "-q")
    done = cli(*words)
    report = json.loads(done.out)
    page = (tmp_path / "p.html").read_text()
    for metric in metrics_of():
        assert value_text(report[metric.name]) in page
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert {"Metrics", "Confusion matrix", "Curves", "Training"} <= set(titles)
    terminal = cli(*words[:2], *words[4:-2], "-q").out
    for title in titles:
        assert (f"\n{title}\n" in terminal) == (title not in ("Curves", "Training")), title
    cells = [unescape(cell) for cell in re.findall(r"<td[^>]*>([^<]*)", page)]
    shown = {word for line in terminal.splitlines() for word in line.split()}
    assert {word for cell in cells for word in cell.split()} <= shown
    again = tmp_path / "again.html"
    in_shell("evaluate", run_folder, "--html", again, "--threshold", 0.2, "--audit", "-q")
    assert again.read_bytes() == (tmp_path / "p.html").read_bytes()


def test_missing_images_and_explanations(cli, tmp_path):
    rows = [prediction(i, "A", "B") for i in range(3)] + [prediction(3, "B", "B")]
    panels = tmp_path / "explained"
    panels.mkdir()
    cv2.imwrite(str(panels / "1.png"), np.zeros((20, 60, 3), np.uint8))
    record = {"schema": "wbctool.image/1", "id": "1", "path": "/x/1.png", "explain": {"method": "gradcam"}}
    (panels / "records.jsonl").write_text(json.dumps({**record, "panel": "1.png"}) + "\n")
    words = ("--html", tmp_path / "p.html", "--explanations", panels)
    assert cli("evaluate", "-", *words, stdin=lines(*rows)).code == 0
    page = (tmp_path / "p.html").read_text()
    assert page.count("image not found") == 3
    assert page.count("data:image/jpeg") == 1


def test_several_runs_make_one_page_and_parallel_coordinates(cli, tmp_path):
    for name, correct in (("a", 8), ("b", 6)):
        labels = ["A" if i % 2 else "B" for i in range(10)]
        rows = [prediction(i, label, label if i < correct else "A") for i, label in enumerate(labels)]
        (tmp_path / f"{name}.jsonl").write_text(lines(*rows))
    words = ("evaluate", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "-q")
    done = cli(*words, "--html", tmp_path / "p.html", "--plots", tmp_path / "plots")
    assert done.code == 0, done.err
    page = (tmp_path / "p.html").read_text()
    assert page.count("<details><summary>") == 2
    assert "Side by side" in page
    names = {str(path.relative_to(tmp_path / "plots")) for path in (tmp_path / "plots").rglob("*.svg")}
    assert "parallel-coordinates.svg" in names
    assert sum(name.endswith("/confusion.svg") for name in names) == 2


def test_plots_are_drawn_twice_the_same(run_folder, tmp_path):
    for name in ("one", "two"):
        done = in_shell("evaluate", run_folder, "--plots", tmp_path / name, "-q")
        assert done.code == 0, done.err
    kinds = ("confusion", "roc", "precision-recall", "reliability", "coverage", "learning-curves")
    for kind in kinds:
        for ending in ("png", "svg"):
            one, two = (tmp_path / name / f"{kind}.{ending}" for name in ("one", "two"))
            assert one.read_bytes() == two.read_bytes()
    assert len(list((tmp_path / "one").iterdir())) == 2 * len(kinds)


def test_curves_are_those_of_scikit_learn():
    from sklearn.metrics import average_precision_score, roc_auc_score

    from wbctool.statistics.counts import curves

    rng = np.random.default_rng(0)
    for levels in (3, 40, 10_000):
        scores = rng.integers(0, levels, 300) / levels
        positive = rng.random(300) < 0.2 + 0.6 * scores
        points = curves(positive, scores)
        steps = np.diff(points["recall"]) @ np.array(points["precision"][1:])  # the area under steps as they are drawn
        assert steps == pytest.approx(average_precision_score(positive, scores), abs=1e-9)
        assert np.trapezoid(points["tpr"], points["fpr"]) == pytest.approx(roc_auc_score(positive, scores), abs=1e-9)


def test_names_that_look_like_formulae_are_drawn(cli, tmp_path):
    done = cli("evaluate", "-", "--plots", tmp_path / "plots", stdin=lines(*evil(tmp_path)))
    assert done.code == 0, done.err


def test_a_page_that_cannot_be_written_is_one_line(cli, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli("evaluate", "-", "--html", tmp_path / "file" / "p.html", stdin=lines(prediction(0, "A", "A")))
    assert done.code == 3
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_opens_it_without_messages_and_requests(run_folder, tmp_path, width):
    done = in_shell("evaluate", run_folder, "--html", tmp_path / "p.html", "--audit", "-q")
    assert done.code == 0, done.err
    requested = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments):
            requested.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # the page has no script: a second page, which frames it, reports its widths
    probe = (
        f'<iframe id=f src="/p.html" width={width} height=900></iframe><script>onload=()=>{{'
        "const d=document.getElementById('f').contentDocument.documentElement;"
        "document.title=d.scrollWidth+' '+d.clientWidth}</script>"
    )
    (tmp_path / "probe.html").write_text(probe)
    quiet = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
    words = [
        CHROMIUM, "--headless", "--no-sandbox", *quiet.split(), "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        f"http://127.0.0.1:{server.server_port}/probe.html",
    ]  # fmt: skip
    shown = subprocess.run(words, capture_output=True, text=True, timeout=120)
    server.shutdown()
    assert [path for path in requested if path != "/favicon.ico"] == ["/probe.html", "/p.html"]
    assert "CONSOLE" not in shown.stderr
    content, visible = re.search(r"<title>(\d+) (\d+)</title>", shown.stdout).groups()
    assert int(content) <= int(visible) <= width  # nothing sticks out to the side
