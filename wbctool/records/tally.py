"""Counting while reading: what was left out, damaged or missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from wbctool.errors import InputError, counted

SHOWN = 3  # damaged lines that are shown
_LABEL_HINT = ": the label is the sub-folder's name; give the folder above it, or --label-regex or --labels"
_NOTES = {
    "hidden": ("hidden file", "left out"),
    "no image": ("non-image file", "left out"),
    "output folder": ("folder", "made by wbctool inside the input left out"),
    "class not asked for": ("image", "of other classes left out (--classes)"),
    "no label": ("image", "without a label"),
    "not here": (
        "record",
        "on stdin with relative paths that do not lead to images from this folder (paths in a folder's records.jsonl "
        "are relative to that folder: give the folder, or run jq on what wbctool prints)",
    ),
    "group not matched": ("image", "with an id that --group-regex does not match; each is a group of its own"),
}


@dataclass
class Tally:
    """What was read, left out or damaged; shown on stderr at the end.

    Attributes:
        counts: how often each kind of thing was left out, damaged or missing.
        unlabelled_example: id of the first image without a label.
        damages: messages of the first damaged lines.
        prefixes: what was put in front of the ids of inputs that have ids in common.
        known_classes: names that may be renamed or kept although no record has them: those that a run predicts.
        unused_options: returns a warning for each class, renaming, table row or pattern that matched no record.
        line: line number in the file being read, from 1; 0 if it has no lines.
    """

    counts: Counter[str] = field(default_factory=Counter)
    read: int = 0
    unlabelled_example: str = ""
    damages: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    known_classes: frozenset[str] = frozenset()
    unused_options: Callable[[], list[str]] = list
    file: str = ""
    line: int = 0

    @property
    def location(self) -> str:
        """File and line of the last record."""
        return f"{self.file} line {self.line}" if self.line else self.file

    def damage(self, message: str) -> None:
        """Count a line or folder that cannot be read."""
        self.counts["damaged"] += 1
        if len(self.damages) < SHOWN:
            self.damages.append(message)

    def refuse_damage(self) -> None:
        """Refuse damaged input by an `InputError`, for commands that need all of it."""
        if self.damages:
            raise InputError(f"{self.damages[0]}; repair or remove it first")

    def failures(self) -> list[str]:
        """Return a line for each of the first inputs that could not be read, and one for all further ones."""
        more = self.counts["damaged"] - len(self.damages)
        lines = [f"failed: {reason}" for reason in self.damages]
        return [*lines, f"failed: {counted(more, 'more input')}"] if more else lines

    def notes(self) -> list[str]:
        """Return a line for each kind of thing left out or missing."""
        lines = []
        for key, (noun, text) in _NOTES.items():
            if self.counts[key]:
                lines.append(f"{counted(self.counts[key], noun)} {text}")
                if key == "no label":
                    lines[-1] += f" (such as {self.unlabelled_example})"
                    if "/" not in self.unlabelled_example and self.counts[key] >= self.read:
                        lines[-1] += _LABEL_HINT
        if self.prefixes:
            lines.append(f"several inputs have the same ids; put in front of them: {', '.join(self.prefixes)}")
        return [*lines, *(f"warning: {text}" for text in self.unused_options())]
