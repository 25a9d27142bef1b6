"""Labels and groups of images, from their names or from a table; which classes are kept; what was left out."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wbctool.errors import InputError, UsageProblem
from wbctool.records import ERROR, Record, source_of

SHOWN, SHOWN_CLASSES = 3, 20  # damaged lines, and classes, that are named


@dataclass
class Tally:
    """What was met on the way in and not worked on; told on stderr at the end.

    Attributes:
        counts: by what it was, how often.
        read: records so far.
        unlabelled_example: id of the first image without a label.
        damages: the first messages of damaged lines.
        unmet: gives a line for each thing that was asked for and met nowhere.
        file: that is being read.
        line: of it, from 1; 0 where it has none.
    """

    counts: Counter[str] = field(default_factory=Counter)
    read: int = 0
    unlabelled_example: str = ""
    damages: list[str] = field(default_factory=list)
    unmet: Callable[[], list[str]] = list
    file: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """Where the record that came last was read."""
        return f"{self.file} line {self.line}" if self.line else self.file

    def damage(self, message: str) -> None:
        """Count a line or folder that cannot be read."""
        self.counts["damaged"] += 1
        if len(self.damages) < SHOWN:
            self.damages.append(message)

    def refuse_damage(self) -> None:
        """For commands that need all of their input.

        Raises:
            InputError: a line was damaged.
        """
        if self.damages:
            raise InputError(f"{self.damages[0]}; mend or remove it first")

    def failures(self) -> list[str]:
        """A line for each of the first inputs that could not be read, and one for all further ones."""
        more = self.counts["damaged"] - len(self.damages)
        said = [f"failed: {reason}" for reason in self.damages]
        return [*said, f"failed: {more:,} more inputs"] if more else said

    def notes(self) -> list[str]:
        """One line for each kind of thing left out or lacking."""
        wording = {
            "hidden": "hidden files left out",
            "no image": "files that are no images left out",
            "output folder": "folders made by wbctool inside the input left out",
            "class not asked for": "images of other classes left out (--classes)",
            "no label": f"images without a label (such as {self.unlabelled_example})" + self._hint(),
            "not here": "records on stdin have relative paths that do not lead to images from this folder (those of a "
            "folder's records.jsonl start in it: give the folder, or run jq on what wbctool prints)",
            "group not matched": "images whose id --group-regex does not match; each is a group of its own",
        }
        said = [f"{self.counts[key]:,} {text}" for key, text in wording.items() if self.counts[key]]
        return [*said, *(f"warning: {text}" for text in self.unmet())]

    def _hint(self) -> str:
        if "/" in self.unlabelled_example or self.counts["no label"] < self.read:
            return ""
        return ": the label is the sub-folder's name; give the folder above it, or --label-regex or --labels"


@dataclass(frozen=True)
class Selection:
    """Where labels and groups come from, and which classes are kept.

    Attributes:
        label_regex: searched in the original file name; its group `label` is the label.
        group_regex: searched in the id; its named groups, joined, are the group.
        labels: a CSV file with the columns `image`, `label` and/or `group`.
        classes: names with commas; None keeps all.
        rename: of labels, `old=new` each.
    """

    label_regex: str | None = None
    group_regex: str | None = None
    labels: Path | None = None
    classes: str | None = None
    rename: tuple[str, ...] = ()


class Selector:
    """Applies a `Selection` to records, counting what it leaves out.

    Raises:
        UsageProblem: a pattern or a renaming that cannot be read.
        InputError: a table of labels that cannot be read.
    """

    def __init__(self, selection: Selection, tally: Tally) -> None:
        self.tally = tally
        self.label_pattern = _compiled(selection.label_regex, "--label-regex")
        self.group_pattern = _compiled(selection.group_regex, "--group-regex")
        self.table = _read_table(selection.labels) if selection.labels else None
        self.classes = {name.strip() for name in (selection.classes or "").split(",") if name.strip()}
        self._labels: set[str] = set()  # those met, and renamings used
        self._group_matched = False
        tally.unmet = self._unmet
        self.rename: dict[str, str] = {}
        for pair in selection.rename:
            old, equals, new = pair.partition("=")
            if not (equals and old and new):
                raise UsageProblem(f"--map {pair}: write it as old=new")
            self.rename[old] = new

    def apply(self, record: Record) -> Record | None:
        """The record with label and group filled in, or None where its class is not asked for."""
        if record["schema"] == ERROR:
            return record
        record = dict(record)
        self.tally.read += 1
        name = os.path.basename(source_of(record)) if self.label_pattern or self.table is not None else ""
        row = self.table.row(record["id"], name) if self.table is not None else {}
        if self.label_pattern or (self.table is not None and self.table.has_labels):
            label = _label_in(self.label_pattern, name) if self.label_pattern else None
            record["label"] = row.get("label") or label
        if row.get("group"):
            record["group"] = row["group"]
        elif self.group_pattern:
            group = _group_in(self.group_pattern, record["id"])
            if group is None:
                self.tally.counts["group not matched"] += 1
            else:
                record["group"], self._group_matched = group, True
        known = record.get("label")
        if known is not None and (self.classes or self.rename):
            self._labels |= {known, self.rename[known]} if known in self.rename else {known}
        if record.get("label") in self.rename:
            record["label"] = self.rename[record["label"]]
        if record.get("label") is None:
            record.pop("label", None)
        if self.classes and record.get("label") not in self.classes:
            self.tally.counts["class not asked for"] += 1
            return None
        if record.get("label") is None:
            self.tally.counts["no label"] += 1
            self.tally.unlabelled_example = self.tally.unlabelled_example or record["id"]
        return record

    def _unmet(self) -> list[str]:
        """What the selection names and no record had; a misspelling, most likely."""
        if not self.tally.read:
            return []
        said = []
        for option, names in (("--classes", self.classes), ("--map", set(self.rename))):
            if missing := sorted(names - self._labels):
                there = ", ".join(sorted(self._labels)[:SHOWN_CLASSES]) or "none"
                said.append(f"{option} {', '.join(missing)}: no image has this class; there are {there}")
        if self.table and (unused := self.table.rows.keys() - self.table.used):
            said.append(
                f"{len(unused):,} of {len(self.table.rows):,} rows of --labels match no image "
                f"(such as {min(unused)}); a row names a file or an id"
            )
        if self.group_pattern and not self._group_matched and not (self.table and self.table.used):
            said.append("--group-regex matches no id at all: each image is its own group")
        return said


@dataclass
class _Table:
    rows: dict[str, dict[str, str]]
    has_labels: bool
    used: set[str] = field(default_factory=set)

    def row(self, record_id: str, name: str) -> dict[str, str]:
        """What it says of a record, by its id or its file's name; empty for nothing."""
        image_id = record_id.partition("#")[0]
        for key in (record_id, image_id, name, PurePosixPath(name).stem):
            if key in self.rows:
                self.used.add(key)
                return self.rows[key]
        return {}


def _compiled(pattern: str | None, option: str) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageProblem(f"{option} {pattern!r} is no regular expression: {error}") from None


def _label_in(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(name)
    if not match:
        return None
    if "label" in pattern.groupindex:
        return match["label"] or None
    return next((text for text in match.groups() if text), None) or match[0] or None


def _group_in(pattern: re.Pattern[str], record_id: str) -> str | None:
    match = pattern.search(record_id)
    if not match:
        return None
    parts = [match[name] for name in pattern.groupindex] or list(match.groups()) or [match[0]]
    return "/".join(part or "" for part in parts)


def _read_table(path: Path) -> _Table:
    """Read a CSV with a column naming the image and columns `label` and/or `group`."""
    columns = {
        "image": ("image", "id", "path", "file", "filename", "name"),
        "label": ("label", "class"),
        "group": ("group", "patient", "slide"),
    }
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=max(",;\t", key=first.count))
            header = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
            found = {
                role: next((header[name] for name in names if name in header), None) for role, names in columns.items()
            }
            if not found["image"] or not (found["label"] or found["group"]):
                raise InputError(
                    f"{path}: needs a column `image` and a column `label` or `group`; has {', '.join(header) or 'none'}"
                )
            rows = {}
            for row in reader:
                entry = {role: (row[found[role]] or "").strip() for role in ("label", "group") if found[role]}
                rows[(row[found["image"]] or "").strip()] = entry
    except OSError as error:
        raise InputError(f"--labels {path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--labels {path}: cannot be read as CSV ({error})") from None
    return _Table(rows, bool(found["label"]))
