"""Run `wbctool` command lines in forks of one process that has imported torch, so that each costs no import.

`python preloaded.py SOCKET` serves; the program that `write_client` makes is as `wbctool` is: its streams, folder,
environment and exit code are those of the shell that calls it.
"""

import atexit
import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from importlib import import_module

import file_events

PRELOADED = ("cli", "explaining.step", "fusing.fusion", "inference.step", "naturalizing.step", "training.run")
PRELOADED = [f"wbctool.{name}" for name in PRELOADED]
PRELOADED += ["matplotlib.figure", "skimage.measure", "sklearn.linear_model", "timm"]

CLIENT = """#!{python} -IS
import array, json, os, socket, sys
words = sys.argv[1:] + ({more} if sys.argv[1:2] == ["train"] else [])
request = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    streams = array.array("i", [0, 1, 2])
    line.sendmsg([len(request).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    for stream in (0, 1, 2):
        os.close(stream)
    line.sendall(request)
    os._exit(line.recv(1)[0])
"""


def _run(words, folder, environment, streams):
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    worker = environment.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):  # others have the other cores
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})
    sys.argv = ["wbctool", *words]
    if limit := environment.get("FILE_SIZE_LIMIT"):  # as on a disk that is full
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    from wbctool.cli import main

    file_events.watch(environment)
    try:
        main()
    except SystemExit as ended:  # taking all that was imported down again would take seconds
        threading._shutdown()  # both as the interpreter does, in its order: pools end, then what waits for them
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(ended.code or 0)


def _answer(line):
    head, streams = socket.recv_fds(line, 8, 3)[:2]
    request = b""
    while len(request) < int.from_bytes(head, "big"):
        request += line.recv(1 << 20)
    command = os.fork()
    if not command:
        os.setpgid(0, 0)
        line.close()
        _run(*json.loads(request), streams)
    for stream in streams:
        os.close(stream)
    ended, tell = os.pipe()
    status = []

    def wait():  # a file descriptor of the process itself is Linux' alone
        status.append(os.waitpid(command, 0)[1])
        os.close(tell)

    waiting = threading.Thread(target=wait)
    waiting.start()
    if ended not in select.select([line, ended], [], [])[0]:  # the caller was killed
        os.kill(command, signal.SIGKILL)
    waiting.join()
    with suppress(BrokenPipeError):
        line.sendall(bytes([os.waitstatus_to_exitcode(status[0]) % 256]))


def _serve(address):
    for name in PRELOADED:
        import_module(name)
    with socket.socket(socket.AF_UNIX) as door:
        gc.freeze()  # so that forks share what was imported
        door.bind(address)
        door.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            line, _ = door.accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                door.close()
                _answer(line)
                os._exit(0)
            line.close()


def write_client(program, address, more=()):
    """The program at this path, which has the server at `address` run its words; `more` is added to those of `train`.

    Returns:
        The path.
    """
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(CLIENT.format(python=sys.executable, address=str(address), more=list(more)))
    program.chmod(0o755)
    return program


@contextmanager
def served():
    """A server; the path of its socket."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        server = subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE)
        assert server.stdout.readline() == b"ready\n"
        try:
            yield address
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    _serve(sys.argv[1])
