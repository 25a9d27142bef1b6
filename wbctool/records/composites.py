"""Composites train, and never test: the rule that split, train and evaluate share.

A record of a composite says `synthetic: true`, and of which images it was made in `sources`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from wbctool.errors import InputError
from wbctool.records import CELL, Record

ALLOW = "--allow-synthetic"


def is_composite(record: Record) -> bool:
    """Whether a record is of a composite, or of a cell cut from one."""
    return bool(record.get("synthetic"))


def refuse_unsplit(records: Iterable[Record]) -> None:
    """For what shares images out: composites among them would end in validation and test.

    Raises:
        InputError: there are composites.
    """
    made = [record["id"] for record in records if is_composite(record)]
    if made:
        raise InputError(
            f"{made[0]}: is a composite ({len(made):,} in all), which would reach validation or test; split the real "
            f"images and make composites of the result, or add {ALLOW}"
        )


def refuse_tested(splits: Mapping[str, Sequence[Record]]) -> None:
    """For training: composites in validation or test, and composites made of what is held back.

    Args:
        splits: records by `train`, `val`, `test`.

    Raises:
        InputError: there is one of either.
    """
    held: dict[str, str] = {}
    for name in ("val", "test"):
        for record in splits.get(name, ()):
            if is_composite(record):
                raise InputError(f"{record['id']}: is a composite in {name}; leave it out, or add {ALLOW}")
            held[record["id"].rpartition("#")[0] if record["schema"] == CELL else record["id"]] = name
    for record in splits.get("train", ()):
        if not is_composite(record):
            continue
        sources = record.get("sources")
        for source in sources if isinstance(sources, list) else ():
            if isinstance(source, str) and source in held:
                raise InputError(
                    f"{record['id']}: was made of {source}, which is in {held[source]}; make composites of this "
                    f"split's training images, or add {ALLOW}"
                )
