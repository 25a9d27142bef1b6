"""Writing splits and folds into records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from wbctool.errors import UsageProblem
from wbctool.records import ERROR, Record, group_of
from wbctool.records.assignment import assign_groups


def add_splits(records: Sequence[Record], fractions: dict[str, float], seed: int) -> list[Record]:
    """Return the records, each with a `split`; error records stay as they are."""
    names = list(fractions)
    assigned = _assign(records, list(fractions.values()), seed)
    return [record if subset is None else {**record, "split": names[subset]} for record, subset in assigned]


def add_folds(records: Sequence[Record], folds: int, fold: int, seed: int) -> list[Record]:
    """Return the records, each with its `fold` from 1 and a `split`: one fold tests, the next validates.

    Raises:
        UsageProblem: fewer than three folds, a `fold` outside 1 to `folds`, or more folds than any class has groups.
    """
    check_folds(folds, fold)
    pairs = {(record.get("label"), group_of(record)) for record in records if record["schema"] != ERROR}
    most = max(Counter(label for label, _ in pairs).values(), default=0)
    if folds > most:
        raise UsageProblem(f"--folds {folds}: no class has more than {most:,} groups (images, slides, patients)")
    role = {fold: "test", fold % folds + 1: "val"}
    assigned = _assign(records, [1 / folds] * folds, seed)
    return [
        record if subset is None else {**record, "fold": subset + 1, "split": role.get(subset + 1, "train")}
        for record, subset in assigned
    ]


def check_folds(folds: int, fold: int) -> None:
    """Refuse fewer than three folds, or a `fold` outside 1 to `folds`.

    Raises:
        UsageProblem: naming the option.
    """
    if folds < 3:
        raise UsageProblem(f"--folds {folds}: at least 3 (one trains, one validates, one tests)")
    if not 1 <= fold <= folds:
        raise UsageProblem(f"--fold {fold}: from 1 to {folds}")


def _assign(records: Sequence[Record], fractions: list[float], seed: int) -> list[tuple[Record, int | None]]:
    """Return each record with the index of its subset; None for error records."""
    samples = [record for record in records if record["schema"] != ERROR]
    subsets = iter(assign_groups([r.get("label") for r in samples], [group_of(r) for r in samples], fractions, seed))
    return [(record, None if record["schema"] == ERROR else int(next(subsets))) for record in records]
