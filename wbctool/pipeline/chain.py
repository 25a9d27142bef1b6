"""Several steps, one after another, on each smear field: from fields to the cells that a model classifies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from wbctool.errors import ImageError
from wbctool.pipeline.runner import stream_step
from wbctool.pipeline.step import Step
from wbctool.records import IMAGE, Record, path_keys


@contextmanager
def cells_of_fields(
    records: Iterable[Record], steps: Sequence[Step], folder: Path | None = None, jobs: int = 0
) -> Iterator[tuple[Iterator[Record], Callable[[Record], Record]]]:
    """Yield the cells of fields, and what a record made from a cell has to go through at the end.

    Cells come in the order of the fields; a field without any comes as its mask record, with empty `cells`.

    Args:
        records: image and error records.
        steps: what each field goes through.
        folder: where cells, and what led to them, are kept; None for a temporary folder, which needs the second
            function: it removes a cell's files and makes its record one of the field.
        jobs: processes, 0 for one per core.
    """
    temporary = TemporaryDirectory(prefix="wbctool-", ignore_cleanup_errors=True)
    with nullcontext(str(folder)) if folder else temporary as name:
        path = Path(name).resolve()
        chained = Step(
            name="fields",
            settings={},
            expected=_expected,
            work=partial(_through, steps, folder is not None),
            compose=lambda record, made: made,
            made=(),
        )
        with closing(stream_step(chained, records, path, jobs)) as cells:
            yield cells, _unchanged if folder else partial(without_files, path)


def _unchanged(record: Record) -> Record:
    return record


def _expected(record: Record) -> set[str]:
    if record["schema"] != IMAGE:
        raise ImageError(f"{record['id']}: is not a whole field; leave out --fields")
    return set()


def _through(steps: Sequence[Step], keep: bool, field: Record, folder: Path, name: str) -> list[Record]:
    """The records of one field after all steps, each step with a folder of its own."""
    results, earlier = [field], []
    for step in steps:
        earlier += results
        results = [
            step.compose(record, made) for record in results for made in step.work(record, folder / step.name, name)
        ]
    if not keep:
        needed = {record[key] for record in results for key in ("path", "mask") if key in record}
        for path in {record[key] for record in earlier for key in path_keys(record)} - needed:
            if Path(path).is_relative_to(folder):
                Path(path).unlink(missing_ok=True)
    return results


def without_files(folder: Path, record: Record) -> Record:
    """The record of a cell as one of its field, at its `bbox`; the cell's files in the folder are removed."""
    paths = {key: record[key] for key in path_keys(record)}
    temporary = {key for key, path in paths.items() if Path(path).is_relative_to(folder)}
    for key in temporary:
        Path(paths[key]).unlink(missing_ok=True)
    field = record.get("original") or record.get("source") or record["path"]
    moved = {**record, "path": field, **({"source": field} if "source" in record else {})}
    return {key: value for key, value in moved.items() if key not in {"mask", "original"} or key not in temporary}
