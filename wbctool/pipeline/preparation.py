"""From smear fields to the cells that a model sees: enhanced, segmented and cropped as its own images were."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from functools import partial
from pathlib import Path

from wbctool.errors import ImageError
from wbctool.pipeline.runner import Step, stream_step
from wbctool.records import IMAGE, Record, path_keys


def cells_of_fields(
    records: Iterable[Record], steps: Sequence[Step], folder: Path, jobs: int = 0, keep: bool = False
) -> Generator[Record]:
    """The cells of each field, in order; a field without any comes out as its mask record, with empty `cells`.

    Args:
        records: image and error records.
        steps: as `steps_of` gives them.
        folder: where cells are written.
        jobs: processes, 0 for one per core.
        keep: leave enhanced fields and masks there, too.
    """
    return stream_step(
        Step(
            name="fields",
            settings={},
            expected=_expected,
            work=partial(_through, steps, keep),
            compose=lambda record, made: made,
            made=(),
        ),
        records,
        folder,
        jobs,
    )


def _expected(record: Record) -> set[str]:
    if record["schema"] != IMAGE:
        raise ImageError(f"{record['id']}: is not a whole field; leave out --fields")
    return set()


def _through(steps: Sequence[Step], keep: bool, record: Record, folder: Path, name: str) -> list[Record]:
    """One field through all steps, each in a folder of its own."""
    found, passed = [record], []
    for step in steps:
        passed += found
        found = [step.compose(one, made) for one in found for made in step.work(one, folder / step.name, name)]
    if not keep:
        wanted = {one[key] for one in found for key in ("path", "mask") if key in one}
        for path in {one[key] for one in passed for key in path_keys(one)} - wanted:
            if Path(path).is_relative_to(folder):
                Path(path).unlink(missing_ok=True)
    return found


def without_files(record: Record, folder: Path) -> Record:
    """A prediction whose cell was made in a folder that does not stay: of its field, at its `bbox`; the files go."""
    paths = {key: record[key] for key in path_keys(record)}
    made = {key for key, path in paths.items() if Path(path).is_relative_to(folder)}
    for key in made:
        Path(paths[key]).unlink(missing_ok=True)
    field = record.get("original") or record.get("source") or record["path"]
    moved = {**record, "path": field, **({"source": field} if "source" in record else {})}
    return {key: value for key, value in moved.items() if key not in {"mask", "original"} or key not in made}
