"""Records: the contract between steps, one JSON object a line; their types, ids, paths, labels and groups."""

from wbctool.records.paths import (
    group_of,
    has_image,
    path_keys,
    preparation_of,
    source_of,
    with_absolute_paths,
    with_relative_paths,
)
from wbctool.records.schemas import (
    CELL,
    ERROR,
    IMAGE,
    KINDS,
    MASK,
    MODELS,
    PREDICTION,
    SPLITS,
    Record,
    error_record,
    from_line,
    schema_text,
    to_line,
)

__all__ = [
    "CELL",
    "ERROR",
    "IMAGE",
    "KINDS",
    "MASK",
    "MODELS",
    "PREDICTION",
    "SPLITS",
    "Record",
    "error_record",
    "from_line",
    "group_of",
    "has_image",
    "path_keys",
    "preparation_of",
    "schema_text",
    "source_of",
    "to_line",
    "with_absolute_paths",
    "with_relative_paths",
]
