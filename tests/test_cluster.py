"""`--scheduler`: a Dask cluster of two workers on loopback gives the bytes of one process, whoever dies."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import contents, in_shell

pytest.importorskip("distributed", reason="Dask is not installed")
WORKER = ("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0")


def dask(*words, log, env=None):
    command = [sys.executable, "-m", "dask", *words]
    with open(log, "w") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, cwd=log.parent, env=env)


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


class Cluster:
    def __init__(self, place):
        self.place, self.workers = place, []
        file = place / "scheduler.json"
        words = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        self.scheduler = dask(*words, log=place / "scheduler.log")
        until(file.exists)
        until(lambda: "tcp://" in file.read_text())
        self.address = file.read_text().split('"address": "')[1].split('"')[0]

    def add_worker(self, env=None):
        log = self.place / f"worker-{len(self.workers)}.log"
        words = (*WORKER, self.address, "--local-directory", str(self.place))
        self.workers.append(dask(*words, log=log, env=env))

    def end(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "dask").mkdir()
    made = Cluster(tmp_path / "dask")
    yield made
    made.end()


def lines(file):
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.slow
def test_a_cluster_gives_the_bytes_of_one_process_and_outlives_a_worker(drawn, masks, cluster, tmp_path):
    split = masks.parent / "split.jsonl"
    commands = {
        "enhance": ("enhance", drawn / "images", "--clahe"),
        "segment": ("segment", drawn / "images", "--overlay"),
        "crop": ("crop", split, "--which", "all"),
        "naturalize": ("naturalize", split, "--add", 4),
    }
    for name, words in commands.items():
        alone = in_shell(*words, "-o", tmp_path / "one" / name, "--jobs", 1, "-q")
        assert alone.code == 0, alone.err
        while sum(worker.poll() is None for worker in cluster.workers) < 2:
            cluster.add_worker()
        out = tmp_path / "many" / name
        log = open(tmp_path / "err", "w+")
        command = [sys.executable, "-m", "wbctool", *map(str, words), "-o", str(out), "--scheduler", cluster.address]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        part = out / ".records.jsonl.part"
        until(lambda part=part, running=running: lines(part) >= 3 or running.poll() is not None)
        killed_at = lines(part)
        cluster.workers[-1].send_signal(signal.SIGKILL)
        shown = running.communicate(timeout=120)[0]
        log.seek(0)
        log_text = log.read()
        assert running.returncode == 0, log_text
        assert "Traceback" not in log_text
        assert len(shown.splitlines()) == len(alone.records)
        assert contents(out) == contents(tmp_path / "one" / name)
        print(f"{name}: {len(alone.records)} records, a worker killed after {killed_at}")


@pytest.mark.slow
def test_a_cluster_without_workers_is_waited_for_and_one_that_goes_is_named(drawn, cluster, tmp_path):
    command = [sys.executable, "-m", "wbctool", "segment", str(drawn / "images"), "-o", str(tmp_path / "m")]
    with open(tmp_path / "err", "w+") as log:
        running = subprocess.Popen(
            [*command, "--scheduler", cluster.address], stdout=subprocess.DEVNULL, stderr=log, text=True
        )
        until(lambda: f"{cluster.address} has no workers; waiting" in (tmp_path / "err").read_text())
        cluster.add_worker()
        until(lambda: lines(tmp_path / "m" / ".records.jsonl.part") >= 3)
        cluster.scheduler.kill()
        assert running.wait(timeout=60) == 3
        log_text = (tmp_path / "err").read_text()
        assert "start it and run the same command again" in log_text
        assert "Traceback" not in log_text
    assert in_shell(*command[3:], "-q").code == 0


def test_a_scheduler_that_does_not_answer_is_one_line(drawn, tmp_path):
    for address, code, why in (("tcp://127.0.0.1:9", 3, "no answer"), ("somewhere", 2, "tcp://10.0.0.1:8786")):
        done = in_shell("segment", drawn / "images", "-o", tmp_path / "m", "--scheduler", address, "-q")
        assert done.code == code, done.err
        assert f"--scheduler {address}: " in done.err
        assert why in done.err
        assert len(done.err.splitlines()) == 1, done.err


@pytest.mark.parametrize(
    ("module", "why"),
    [("raise ImportError('hidden')", "lacks wbctool (hidden)"), ("__version__ = '9.9'", "wbctool 9.9")],
)
def test_workers_that_lack_the_package_are_named(drawn, cluster, tmp_path, module, why):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "wbctool.py").write_text(module)
    cluster.add_worker({**os.environ, "PYTHONPATH": str(tmp_path / "other")})
    done = in_shell("segment", drawn / "images", "-o", tmp_path / "m", "--scheduler", cluster.address, "-q")
    assert done.code == 5, done.err
    assert why in done.err
    assert len(done.err.splitlines()) == 1, done.err
