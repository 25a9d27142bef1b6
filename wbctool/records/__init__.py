"""The record types, the contract between steps, and their ids, paths, labels and groups.

A record is one JSON object on one line. Commands keep it as a plain `dict`, so that unknown keys
pass through unchanged. The models below declare the keys that a record must have; records are
validated when they are read. `wbctool --schema NAME` prints the JSON Schema of each.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from wbctool.errors import InputError, UsageProblem

Record = dict[str, Any]

IMAGE = "wbctool.image/1"
MASK = "wbctool.mask/1"
CELL = "wbctool.cell/1"
PREDICTION = "wbctool.prediction/1"
ERROR = "wbctool.error/1"

SPLITS = ("train", "val", "test")
KINDS = ("wbc", "rbc", "platelet")

_HUGE = re.compile(r"[eE]\+?\d{3}")  # numbers that may overflow to infinity
_MAX_DEPTH = 64
_MADE_BY = [("source", "crop"), ("original", "enhance"), ("panel", "explain"), ("maps", "explain")]  # path keys

Text = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
Box = Annotated[list[float], Field(min_length=4, max_length=4)]
Value = Annotated[int, Field(ge=1, le=65535)]


class _Base(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Nucleus(_Base):
    """The nucleus of a white cell: its value in the label image and its area in pixels."""

    value: Value
    area: Annotated[int, Field(ge=0)]


class CellOutline(_Base):
    """One object of a mask record; `area` includes the nucleus, `bbox` is x, y, width, height.

    `edge`: cut by the image's edge. `whole`, of red cells: one entire cell that touches no other. `quality`: how well
    outline and nucleus are expected to agree with an expert's, as Dice; absent where the method cannot tell.
    """

    value: Value
    kind: Literal["wbc", "rbc", "platelet"]
    bbox: Box
    area: Annotated[int, Field(ge=0)]
    centroid: Annotated[list[float], Field(min_length=2, max_length=2)]
    edge: bool = False
    nucleus: Nucleus | None = None
    whole: bool | None = None
    quality: Annotated[float, Field(ge=0, le=1)] | None = None


class _Sample(_Base):
    id: Text
    path: Text
    label: str | None = None
    group: str | None = None
    split: Literal["train", "val", "test"] | None = None
    fold: int | None = None
    synthetic: bool | None = None
    method: str | None = None
    constants: dict[str, Any] | None = None
    enhance: dict[str, Any] | None = None
    crop: dict[str, Any] | None = None
    mask: Text | None = None
    cells: list[CellOutline] | None = None
    value: Value | None = None
    nucleus: Nucleus | None = None


class ImageRecord(_Sample):
    """An image, with its label, group and split, as far as they are known."""

    schema_: Literal["wbctool.image/1"] = Field(alias="schema")


class MaskRecord(_Sample):
    """An image and its label image. `size` is width and height in pixels.

    `warnings`: counts of what is doubtful, such as `no_white_cell`, `giant_platelets`, `implausible_nuclei`.
    """

    schema_: Literal["wbctool.mask/1"] = Field(alias="schema")
    size: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    seconds: float | None = None
    warnings: dict[str, Annotated[int, Field(ge=1)]] | None = None
    cells: list[CellOutline]


class CellRecord(_Sample):
    """One cropped cell. `bbox` is the crop window in source pixels; it may reach outside."""

    schema_: Literal["wbctool.cell/1"] = Field(alias="schema")
    source: Text
    bbox: Box
    value: Value
    kind: Literal["wbc", "rbc", "platelet"]
    quality: Annotated[float, Field(ge=0, le=1)] | None = None
    crop: dict[str, Any]


class PredictionRecord(_Sample):
    """One prediction: the class names with their probabilities, and the most probable class.

    `missing`: inputs of the run, other than the image, that were not available. `merged`: classes of the run that a
    class stands for. `excluded`: classes of the run that were no answer. `prediction_set`: classes that hold the
    true one with probability `coverage`.
    """

    schema_: Literal["wbctool.prediction/1"] = Field(alias="schema")
    run: str | None = None
    predicted: Text
    confidence: Annotated[float, Field(ge=0, le=1)]
    probabilities: dict[str, Annotated[float, Field(ge=0, le=1)]]
    uncertain: bool | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None
    views: Annotated[int, Field(ge=1)] | None = None
    precision: str | None = None
    missing: list[str] | None = None
    prediction_set: list[str] | None = None
    coverage: Annotated[float, Field(gt=0, lt=1)] | None = None
    merged: dict[str, list[str]] | None = None
    excluded: list[str] | None = None


class ErrorRecord(_Base):
    """An input that failed, and the reason."""

    schema_: Literal["wbctool.error/1"] = Field(alias="schema")
    id: Text
    path: Text | None = None
    error: Text


MODELS: dict[str, type[_Base]] = {
    IMAGE: ImageRecord,
    MASK: MaskRecord,
    CELL: CellRecord,
    PREDICTION: PredictionRecord,
    ERROR: ErrorRecord,
}


def schema_text(name: str) -> str:
    """Return the JSON Schema of a record type, by its short or full name; an unknown one is a `UsageProblem`."""
    full = name if name in MODELS else f"wbctool.{name}/1"
    if full not in MODELS:
        short = ", ".join(known.split(".")[1].split("/")[0] for known in MODELS)
        raise UsageProblem(f"--schema {name}: unknown record type; choose from {short}")
    schema = MODELS[full].model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = full
    return json.dumps(schema, indent=2)


def to_line(record: Record) -> str:
    """Return a record as one line of compact JSON, without the newline."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def from_line(line: str, where: str) -> Record:
    """Read and validate one line; `where` is its file and number for an `InputError`, as `split.jsonl line 7`."""
    is_strict = True
    try:
        record = pydantic_core.from_json(line, allow_inf_nan=False)
    except ValueError:
        is_strict = (
            False  # what only Python's slower parser takes (half a surrogate pair, NaN) is refused below, clearly
        )
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON ({error})") from None
    if line.count("[") + line.count("{") > _MAX_DEPTH and _is_deep(record):
        raise InputError(f"{where}: nested over {_MAX_DEPTH} levels deep")
    if not isinstance(record, dict):
        raise InputError(f"{where}: a record is a JSON object, this is a {type(record).__name__}")
    schema = record.get("schema")
    model = MODELS.get(schema) if isinstance(schema, str) else None
    if model is None:
        raise InputError(f"{where}: unknown schema {str(schema)[:60]!r}; expected one of {', '.join(MODELS)}")
    try:
        model.model_validate(record)
        if not is_strict or _HUGE.search(line):
            to_line(record).encode()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}: {key}: {first['msg']}") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: the text is not valid Unicode") from None
    except ValueError:
        raise InputError(f"{where}: NaN and infinity are not JSON") from None
    return record


def _is_deep(record: Record) -> bool:
    level: list[Any] = [record]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def error_record(record_id: str, path: str | None, message: str) -> Record:
    """Return an error record, with the message on one line."""
    return {"schema": ERROR, "id": record_id, "path": path, "error": " ".join(message.split()) or "failed"}


def cell_id(image_id: str, value: int) -> str:
    """Return the id of a cell: the id of its image, `#`, and the cell's value in the label image."""
    return f"{image_id}#{value}"


def image_id_of(record: Record) -> str:
    """Return the id of the image that a record comes from: of a cropped cell that of its field, else its own.

    File names may contain `#` themselves, so only the ending that `cell_id` has added is cut off.
    """
    record_id: str = record["id"]
    return record_id.removesuffix(cell_id("", record["value"])) if "value" in record else record_id


def path_keys(record: Record) -> list[str]:
    """Return the keys of a record that hold paths, some of them only where a step set them."""
    keys = ["path", "mask", *(key for key, step in _MADE_BY if step in record)]
    return [key for key in keys if isinstance(record.get(key), str)]


def source_of(record: Record) -> str:
    """Return the path of the original image: of a cell its source, else the image itself."""
    return record["source"] if "source" in path_keys(record) else record["path"]


def with_absolute_paths(record: Record, base: Path | str) -> Record:
    """Return the record with its relative paths resolved against `base`."""
    base = str(base)
    changed = {key: os.path.normpath(os.path.join(base, record[key])) for key in path_keys(record)}
    return {**record, **changed}


def with_relative_paths(record: Record, base: Path | str) -> Record:
    """Return the record with its paths written relative to `base`, a path without links."""
    return {**record, **{key: os.path.relpath(record[key], base) for key in path_keys(record)}}


def has_image(record: Record) -> bool:
    """Return whether a model can classify this record: an image, a field with its mask, or a cell.

    A field in which `crop` found no cell keeps its mask record, with an empty `cells`; it has
    nothing to classify.
    """
    if record["schema"] == MASK:
        return not ("crop" in record and not record["cells"])
    return record["schema"] in (IMAGE, CELL)


def preparation_of(record: Record) -> dict[str, Any]:
    """Return how an image was prepared for a model: enhancement, segmentation, crop."""
    steps = {"enhance": record.get("enhance"), "crop": record.get("crop")}
    if steps["crop"]:
        steps["segment"] = {"method": record.get("method"), **(record.get("constants") or {})}
    return {key: value for key, value in steps.items() if value}


def group_of(record: Record) -> str:
    """Return the group of a record: its `group` key, else its source image."""
    return record.get("group") or source_of(record)
