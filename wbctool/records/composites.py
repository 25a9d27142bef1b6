"""The rule of split, train and evaluate: composites are for training, never for validation or test.

A record of a composite has `synthetic: true`, and in `sources` the ids of the images it was made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from wbctool.errors import InputError, counted
from wbctool.records import Record, image_id_of

ALLOW = "--allow-synthetic"


def is_composite(record: Record) -> bool:
    """Return whether a record is of a composite, or of a cell cropped from one."""
    return bool(record.get("synthetic"))


def refuse_unsplit(records: Iterable[Record]) -> None:
    """Refuse composites among records that are about to be split, by an `InputError`."""
    composites = [record["id"] for record in records if is_composite(record)]
    if composites:
        raise InputError(
            f"{composites[0]}: is a composite ({len(composites):,} in all), which would reach validation or test; "
            f"split the real images and make composites of the result, or add {ALLOW}"
        )


def warning_of_tested(records: Iterable[Record]) -> str:
    """Return a warning if composites are in validation or test, else an empty text."""
    count = sum(is_composite(record) and record.get("split") in ("val", "test") for record in records)
    text = "in validation or test: their figures say nothing about real images"
    return f"{counted(count, 'composite is', 'composites are')} {text}" if count else ""


def refuse_tested(splits: Mapping[str, Sequence[Record]]) -> None:
    """Refuse composites in validation or test, and training composites made of images from there (`InputError`)."""
    holdout: dict[str, str] = {}
    for name in ("val", "test"):
        for record in splits.get(name, ()):
            if is_composite(record):
                raise InputError(f"{record['id']}: is a composite in {name}; leave it out, or add {ALLOW}")
            holdout |= {record["id"]: name, image_id_of(record): name}
    for record in splits.get("train", ()):
        if not is_composite(record):
            continue
        sources = record.get("sources")
        for source in sources if isinstance(sources, list) else ():
            if isinstance(source, str) and source in holdout:
                raise InputError(
                    f"{record['id']}: was made of {source}, which is in {holdout[source]}; make composites of this "
                    f"split's training images, or add {ALLOW}"
                )
