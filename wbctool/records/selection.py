"""Selecting: labels and groups of images, from their names or from a table; the classes that are kept."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wbctool.errors import InputError, UsageProblem
from wbctool.records import ERROR, Record, image_id_of, source_of
from wbctool.records.tally import Tally

SHOWN_CLASSES = 20  # classes that a warning names
_COLUMNS = {
    "image": ("image", "id", "path", "file", "filename", "name"),
    "label": ("label", "class"),
    "group": ("group", "patient", "slide"),
}


@dataclass(frozen=True)
class Selection:
    """Where labels and groups come from, and which classes are kept.

    Attributes:
        label_regex: searched in the original file name; its group `label` is the label.
        group_regex: searched in the id; its named groups, joined, are the group.
        labels: a CSV file with the columns `image`, `label` and/or `group`.
        classes: names with commas; None keeps all.
        rename: of labels, `old=new` each.
        keep_unlabelled: images without a label are kept although `classes` are named.
    """

    label_regex: str | None = None
    group_regex: str | None = None
    labels: Path | None = None
    classes: str | None = None
    rename: tuple[str, ...] = ()
    keep_unlabelled: bool = False


class Selector:
    """Applies a `Selection`, whose patterns and table are checked here, and counts what it leaves out."""

    def __init__(self, selection: Selection, tally: Tally) -> None:
        self.tally = tally
        self.label_pattern = _compile(selection.label_regex, "--label-regex")
        self.group_pattern = _compile(selection.group_regex, "--group-regex")
        self.rows, self.has_labels = _read_table(selection.labels) if selection.labels else ({}, False)
        self.classes = {name.strip() for name in (selection.classes or "").split(",") if name.strip()}
        self.keep_unlabelled = selection.keep_unlabelled
        self.rename: dict[str, str] = {}
        for pair in selection.rename:
            old, _, new = pair.partition("=")
            if not (old and new):
                raise UsageProblem(f"--map {pair}: write it as old=new")
            self.rename[old] = new
        self._labels: set[str] = set()  # labels of the records, and new names
        self._used_rows: set[str] = set()
        self._group_matched = False
        tally.unused_options = self._unused_options

    def apply(self, record: Record, prefix: str = "") -> Record | None:
        """Return a record with its label and group, or None if its class is not to be kept.

        Patterns and tables match the id with and without the prefix that is to be put in front of it.
        """
        if record["schema"] == ERROR:
            return record
        record = dict(record)
        self.tally.read += 1
        row = self._set_label(record, prefix)
        self._set_group(record, prefix, row)
        label = record.get("label")
        if label is not None and (self.classes or self.rename):
            self._labels.add(label)
        if label in self.rename:
            record["label"] = label = self.rename[label]
            self._labels.add(label)
        if label is None:
            record.pop("label", None)
        if self.classes and label not in self.classes and not (label is None and self.keep_unlabelled):
            self.tally.counts["class not asked for"] += 1
            return None
        if label is None:
            self.tally.counts["no label"] += 1
            self.tally.unlabelled_example = self.tally.unlabelled_example or record["id"]
        return record

    def _set_label(self, record: Record, prefix: str) -> dict[str, str]:
        """Set the label by the table, else by the pattern; return the table's row."""
        name = os.path.basename(source_of(record)) if self.label_pattern or self.rows else ""
        row = self._row(record, prefix, name) if self.rows else {}
        if self.label_pattern or self.has_labels:
            record["label"] = row.get("label") or (_label_in(self.label_pattern, name) if self.label_pattern else None)
        return row

    def _row(self, record: Record, prefix: str, name: str) -> dict[str, str]:
        """Return the row of a record, found by its id or its file's name; empty if there is none."""
        ids = record["id"], image_id_of(record)
        for key in (*(prefix + record_id for record_id in ids), *ids, name, PurePosixPath(name).stem):
            if key in self.rows:
                self._used_rows.add(key)
                return self.rows[key]
        return {}

    def _set_group(self, record: Record, prefix: str, row: dict[str, str]) -> None:
        if row.get("group"):
            record["group"] = row["group"]
        elif self.group_pattern:
            match = self.group_pattern.search(record["id"]) or self.group_pattern.search(prefix + record["id"])
            if match is None:
                self.tally.counts["group not matched"] += 1
            else:
                parts = [match[name] for name in match.re.groupindex] or list(match.groups()) or [match[0]]
                record["group"], self._group_matched = "/".join(part or "" for part in parts), True

    def _unused_options(self) -> list[str]:
        """Return a warning for each part of the selection that matched no record: probably a misspelling."""
        if not self.tally.read:
            return []
        warnings = []
        for option, names in (("--classes", self.classes), ("--map", set(self.rename))):
            if missing := sorted(names - self._labels - self.tally.known_classes):
                known = ", ".join(sorted(self._labels)[:SHOWN_CLASSES]) or "none"
                warnings.append(f"{option} {', '.join(missing)}: no image has this class; there are {known}")
        if unused := self.rows.keys() - self._used_rows:
            warnings.append(
                f"{len(unused):,} of {len(self.rows):,} rows of --labels match no image "
                f"(such as {min(unused)}); a row names a file or an id"
            )
        if self.group_pattern and not self._group_matched and not self._used_rows:
            warnings.append("--group-regex matches no id at all: each image is its own group")
        return warnings


def _compile(pattern: str | None, option: str) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageProblem(f"{option} {pattern!r}: not a regular expression ({error})") from None


def _label_in(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(name)
    if not match:
        return None
    if "label" in pattern.groupindex:
        return match["label"] or None
    return next((text for text in match.groups() if text), None) or match[0] or None


def _read_table(path: Path) -> tuple[dict[str, dict[str, str]], bool]:
    """Read a CSV file: labels and groups by the column that names the image, and whether there are labels."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=max(",;\t", key=first.count))
            names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
            column_keys = {role: next(filter(names.get, keys), None) for role, keys in _COLUMNS.items()}
            columns = {role: names[key] for role, key in column_keys.items() if key}
            if "image" not in columns or len(columns) < 2:
                raise InputError(
                    f"{path}: needs a column `image` and a column `label` or `group`; has {', '.join(names) or 'none'}"
                )
            rows = {}
            for row in reader:
                entry = {role: (row[name] or "").strip() for role, name in columns.items()}
                rows[entry.pop("image")] = entry
    except OSError as error:
        raise InputError(f"--labels {path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--labels {path}: cannot be read as CSV ({error})") from None
    return rows, "label" in columns
