"""Splits and folds written into records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from wbctool.errors import UsageProblem
from wbctool.records import ERROR, Record, group_of
from wbctool.records.assignment import assign


def add_splits(records: Sequence[Record], shares: dict[str, float], seed: int) -> list[Record]:
    """The records, each with a `split`; error records as they are."""
    names = list(shares)
    parts = _parts(records, list(shares.values()), seed)
    return [record if part is None else {**record, "split": names[part]} for record, part in parts]


def add_folds(records: Sequence[Record], folds: int, fold: int, seed: int) -> list[Record]:
    """The records, each with its `fold` from 1 and a `split`: one fold tests, the next validates.

    Raises:
        UsageProblem: fewer than three folds, a fold that is none of them, or more folds than any class has groups.
    """
    check_folds(folds, fold)
    found = {(record.get("label"), group_of(record)) for record in records if record["schema"] != ERROR}
    most = max(Counter(label for label, _ in found).values(), default=0)
    if folds > most:
        raise UsageProblem(f"--folds {folds}: no class has more than {most:,} groups (images, slides, patients)")
    role = {fold: "test", fold % folds + 1: "val"}
    parts = _parts(records, [1 / folds] * folds, seed)
    return [
        record if part is None else {**record, "fold": part + 1, "split": role.get(part + 1, "train")}
        for record, part in parts
    ]


def check_folds(folds: int, fold: int) -> None:
    """Refuse fewer than three folds, or a fold that is none of them.

    Raises:
        UsageProblem: says which.
    """
    if folds < 3:
        raise UsageProblem(f"--folds {folds}: at least 3 (one trains, one validates, one tests)")
    if not 1 <= fold <= folds:
        raise UsageProblem(f"--fold {fold}: from 1 to {folds}")


def _parts(records: Sequence[Record], shares: list[float], seed: int) -> list[tuple[Record, int | None]]:
    samples = [record for record in records if record["schema"] != ERROR]
    parts = iter(assign([r.get("label") for r in samples], [group_of(r) for r in samples], shares, seed))
    return [(record, None if record["schema"] == ERROR else int(next(parts))) for record in records]
