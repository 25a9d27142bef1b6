"""Count what a process does to files, and kill it at one of these moments: the same moment in every run."""

import atexit
import os
import signal
import sys
from pathlib import Path

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
_WRITING = os.O_WRONLY | os.O_RDWR


def watch(environment):
    """Do as the environment says: KILL_AT, the number of the event that the process dies of; EVENTS, a file for their
    number at the end."""
    limit, report, folder = int(environment.get("KILL_AT", 0)), environment.get("EVENTS"), os.getcwd()
    if not limit and not report:
        return
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event not in _CHANGES and not (event == "open" and _writes(arguments)):
            return
        if os.path.abspath(os.fsdecode(arguments[0])).startswith(folder):
            count += 1
            if count == limit:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    if report:
        atexit.register(lambda: Path(report).write_text(str(count)))


def _writes(arguments):
    path, _, flags = arguments
    return isinstance(path, str | bytes | os.PathLike) and isinstance(flags, int) and bool(flags & _WRITING)
