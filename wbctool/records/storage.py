"""Files that are written whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from wbctool.errors import InputError


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, temporary = _open_partial(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # the name that people know
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.replace(temporary, path)  # while its lock is still held
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open_partial(path: Path) -> tuple[int, Path]:
    # One name for each target, so that what a killed process left is replaced and does not stay for
    # ever. Who writes holds a lock; where a living process writes the same file, another name is taken.
    temporary = path.with_name(".partial-" + hashlib.blake2b(path.name.encode(), digest_size=8).hexdigest())
    while True:
        try:
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            if _remove_dead(temporary):
                continue
            temporary = temporary.with_name(f"{temporary.name}-{os.getpid()}-{threading.get_ident()}")
            continue
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)  # taken for dead, and removed, before it was locked


def _remove_dead(temporary: Path) -> bool:
    """Remove a partial file whose writer is gone; False where one still writes it."""
    try:
        with open(temporary, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write an object as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object; `what` says in errors what the file should be.

    Raises:
        InputError: the file is missing or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {what}") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); {what}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: damaged (no JSON object); {what}")
    return value
