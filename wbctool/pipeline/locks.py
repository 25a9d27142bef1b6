"""Locks: one command at a time writes a folder or a file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from wbctool.errors import BusyError

BUSY = "another command is writing this folder; wait for it to end"


def take_lock(file: Path, busy: str) -> IO[bytes]:
    """Open a file, made where it is missing, for reading and appending, and lock it until it is closed.

    Args:
        file: that nobody else may hold.
        busy: the error where another process holds it.

    Raises:
        BusyError: another process holds it.
    """
    while True:
        stream = open(file, "a+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise BusyError(busy) from None
        except OSError:  # a file system without locks
            return stream
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), os.stat(file)):
                return stream
        stream.close()  # its former owner has put it elsewhere before it was locked here


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other commands from writing a folder, which is made, for a while.

    Raises:
        BusyError: another command is writing it.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".lock"
    stream = take_lock(file, f"{folder}: {BUSY}")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        stream.close()
        if made:
            with suppress(OSError):  # what is refused leaves no folder
                folder.rmdir()
