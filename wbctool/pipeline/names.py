"""Names of what is written: one for each input, safe as files, however many there are."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from wbctool.errors import ImageError
from wbctool.records.storage import temporary_table, text_digest


class Names:
    """Hands out output names: an input's relative path without its suffix.

    Where two inputs would share a name, the later one keeps its old suffix; where even that is
    taken, or the same id comes twice, it is an error. Folders that the step makes for itself are
    reserved: a name in one gets an underscore before. Only digests are kept, and not in memory.
    """

    def __init__(self, reserved: tuple[str, ...] = ()) -> None:
        self._reserved = reserved
        self._taken = temporary_table("CREATE TABLE taken (digest INTEGER PRIMARY KEY)")

    def take(self, image_id: str) -> str:
        """The name, with folders, for an id.

        Raises:
            ImageError: the id would lead out of the output folder, or was met before.
        """
        path = PurePosixPath(image_id)
        if path.is_absolute() or ".." in path.parts or not path.name or "\0" in image_id:
            raise ImageError(f"{image_id!r}: the id leads out of the output folder; give it another")
        again = not self._is_new("id", image_id)
        for name in () if again else (path.with_suffix(""), path):
            parts = [_short(part) for part in name.parts]
            if len(parts) > 1 and parts[0] in self._reserved:
                parts[0] = "_" + parts[0]
            if parts[-1].startswith("."):
                parts[-1] = "_" + parts[-1][1:]
            text = "/".join(parts)
            if self._is_new("name", text):
                return text
        raise ImageError(f"{image_id}: two inputs have this id; give their folders as one input, or rename one")

    def _is_new(self, kind: str, text: str) -> bool:
        """Whether this was not met before; from now on it was."""
        return self._taken.execute("INSERT OR IGNORE INTO taken VALUES (?)", (text_digest(text, kind),)).rowcount == 1


def safe_name(text: str) -> str:
    """A label as the name of one folder: no separator, not hidden, not too long."""
    name = _short(text.replace("/", "_").replace("\0", "_"))
    return "_" + name[1:] if name.startswith(".") else name or "_"


def _short(name: str, limit: int = 200) -> str:
    raw = name.encode()
    if len(raw) <= limit:
        return name
    kept = raw[: limit - 17].decode(errors="ignore")
    return f"{kept}-{hashlib.blake2b(raw, digest_size=8).hexdigest()}"
