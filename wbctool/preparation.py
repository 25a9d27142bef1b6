"""From smear fields to the cells that a model sees: enhanced, segmented and cropped as its own images were."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from wbctool.cropping.step import CropOptions, crop_step
from wbctool.enhancing.step import EnhanceOptions, enhance_step
from wbctool.errors import ImageError, InputError
from wbctool.imaging.enhancement import StainProfile
from wbctool.records import IMAGE, Record, path_keys
from wbctool.segmentation.step import segment_step
from wbctool.steps import Step, stream_step


def steps_of(preparation: Mapping[str, Any], kind: str, edge: str, run: str) -> list[Step]:
    """The steps that make such cells, all of a field's.

    Args:
        preparation: as a run folder keeps it (`records.preparation_of`).
        kind: of the cells: `wbc`, `platelet`, `rbc` or `any`.
        edge: `keep` or `drop` those that the image's edge cuts.
        run: the run folder, for errors.

    Raises:
        InputError: the run was trained on whole images, or its preparation cannot be read.
    """
    crop, segment, enhance = (preparation.get(key) for key in ("crop", "segment", "enhance"))
    if not crop or not segment or not segment.get("method"):
        raise InputError(f"{run}: was trained on images as they were given, not on cropped cells; leave out --fields")
    steps = []
    try:
        if enhance:
            steps.append(enhance_step(_enhancing(enhance)))
        constants = {key: tuple(v) if isinstance(v, list) else v for key, v in segment.items() if key != "method"}
        steps.append(segment_step(segment["method"], constants))
        cells = {"kind": kind, "which": "all", "edge": edge}
        steps.append(crop_step(CropOptions(**{**crop, **cells})))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{run}/model.json: its preparation is damaged ({error}); train it again") from None
    return steps


def _enhancing(done: Mapping[str, Any]) -> EnhanceOptions:
    denoise, colours, contrast = done.get("denoise"), done.get("reinhard"), done.get("clahe")
    options: dict[str, Any] = {}
    if denoise:
        options |= {"denoise": denoise["method"], "strength": denoise["strength"]}
    if colours:
        options["profile"] = StainProfile(tuple(colours["mean"]), tuple(colours["std"]))
    if contrast:
        options |= {"clahe": True, "clip": contrast["clip"], "tiles": contrast["tiles"]}
    return EnhanceOptions(**options)


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
