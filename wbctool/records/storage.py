"""Files that are written completely or not at all, and tables too large for memory."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from wbctool.errors import InputError


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file for writing that appears under `path` only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, temporary = _open_partial(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # not the temporary name
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.replace(temporary, path)  # while it is still locked
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open_partial(path: Path) -> tuple[int, Path]:
    # The temporary name depends on the target only, so what a killed process left is replaced. The writer
    # locks the file; while another process writes the same target, a further name is used.
    temporary = path.with_name(".partial-" + hashlib.blake2b(path.name.encode(), digest_size=8).hexdigest())
    while True:
        try:
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            if not _remove_abandoned(temporary):
                temporary = temporary.with_name(f"{temporary.name}-{os.getpid()}-{threading.get_ident()}")
            continue
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)  # another process removed it before it was locked


def _remove_abandoned(temporary: Path) -> bool:
    """Remove a partial file whose writer is gone; return False while one still writes it."""
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
    """Write a file completely or not at all."""
    with atomic(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write an object as indented JSON, completely or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Read a JSON object; an `InputError` about a missing or damaged file ends with the advice."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {advice}") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); {advice}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: damaged (no JSON object); {advice}")
    return value


def temporary_table(definition: str) -> sqlite3.Connection:
    """Return a database with one table, by its SQL definition; it grows on disk and is deleted with the object."""
    database = sqlite3.connect("", isolation_level=None)
    for line in ("PRAGMA journal_mode = OFF", definition, "BEGIN"):
        database.execute(line)
    return database


def text_digest(text: str, kind: str) -> int:
    """Return 64 bits of the digest of a text, as a key of such a table; different for each kind of text."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=kind.encode()).digest()
    return int.from_bytes(digest, "little", signed=True)
