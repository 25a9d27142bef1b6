"""Unique ids: inputs of one command that have ids in common get their names in front of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from wbctool.inputs.images import printable
from wbctool.records import PREDICTION, Record, image_id_of
from wbctool.records.storage import temporary_table, text_digest
from wbctool.records.tally import Tally


@dataclass(frozen=True)
class InputSource:
    """One input of a command.

    Attributes:
        name: of its folder or file.
        origin: what its ids are relative to, a path; images of one folder, given one by one, have one origin.
        read: reads its records.
        peek: reads them beforehand, not validated.
    """

    name: str
    origin: str
    read: Callable[[Tally], Iterator[Record]]
    peek: Callable[[], Iterator[Record]]


class UniqueIds:
    """Makes ids unique across the inputs of one command.

    Where two inputs have an id in common, the names of both are put in front of all their ids: `TRAIN/EO/1.jpg`. All
    inputs are read once beforehand to find these; only digests of ids are kept, on disk. The same inputs always get
    the same ids. Predictions keep the ids of their images, by which runs are compared.

    Attributes:
        prefixes: what is put in front of ids, by the origin of the input; empty if no id is in two inputs.
    """

    def __init__(self, sources: Sequence[InputSource]) -> None:
        self._origins = list(dict.fromkeys(source.origin for source in sources))
        # names: image ids of cells, and folders at the top, with `/` behind them
        columns = "digest INTEGER, is_id INTEGER, origin INTEGER, PRIMARY KEY (digest, is_id, origin)"
        self._names = temporary_table(f"CREATE TABLE names ({columns}) WITHOUT ROWID")
        for source in sources:
            self._names.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", self._rows(source))
        self.prefixes = self._choose_prefixes(sources)

    def _rows(self, source: InputSource) -> Iterator[tuple[int, bool, int]]:
        origin, last_folder = self._origins.index(source.origin), ""
        for record in source.peek():
            if record.get("schema") == PREDICTION:
                continue
            record_id, image_id = record["id"], image_id_of(record)
            yield text_digest(record_id, "id"), True, origin
            if image_id != record_id:
                yield text_digest(image_id, "id"), False, origin
            folder, slash, _ = record_id.partition("/")
            if slash and folder != last_folder:
                yield text_digest(f"{folder}/", "id"), False, origin
                last_folder = folder

    def _choose_prefixes(self, sources: Sequence[InputSource]) -> dict[str, str]:
        query = "SELECT DISTINCT origin FROM names WHERE is_id AND digest IN (SELECT digest FROM names WHERE is_id "
        query += "GROUP BY digest HAVING COUNT(*) > 1)"
        clashing = {self._origins[number] for (number,) in self._names.execute(query)}
        prefixes: dict[str, str] = {}
        for source in sources:
            if source.origin not in clashing or source.origin in prefixes:
                continue
            name, number = printable(source.name) or "input", 1
            prefix = f"{name}/"
            while prefix in prefixes.values() or self._with_name(prefix) - clashing:
                number += 1
                prefix = f"{name}-{number}/"
            prefixes[source.origin] = prefix
        return prefixes

    def _with_name(self, name: str) -> set[str]:
        """Return the origins of the inputs that have an id, an image id or a top folder of this name."""
        rows = self._names.execute("SELECT origin FROM names WHERE digest = ?", (text_digest(name, "id"),))
        return {self._origins[number] for (number,) in rows}

    def apply(self, record: Record, origin: str) -> Record:
        """Return a record of an input with its unique id; ids of other images in it are adapted, too."""
        if not self.prefixes:
            return record
        changed = {}
        if record["schema"] != PREDICTION:
            changed["id"] = self.prefixes.get(origin, "") + record["id"]
        if isinstance(record.get("near_duplicate_of"), str):
            changed["near_duplicate_of"] = self._unique(record["near_duplicate_of"], origin)[0]
        if isinstance(record.get("sources"), list):
            changed["sources"] = [new for old in record["sources"] for new in self._unique(old, origin)]
        return {**record, **changed}

    def _unique(self, image_id: object, origin: str) -> list[object]:
        """Return the new id of an image of the same input, else its ids in all inputs that have it."""
        origins = self._with_name(image_id) if isinstance(image_id, str) else set()
        chosen = [origin] if origin in origins else sorted(origins, key=self._origins.index)
        return [self.prefixes.get(one, "") + str(image_id) for one in chosen] or [image_id]
