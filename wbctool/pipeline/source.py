"""The input of a step: records of folders, files and stdin, read once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import chain

from wbctool.console import note
from wbctool.errors import InputError
from wbctool.inputs.folders import how_many, names_of, read_inputs
from wbctool.pipeline.step import Execution
from wbctool.records import ERROR, Record
from wbctool.records.selection import Selection
from wbctool.records.tally import Tally


class Source:
    """Records of inputs, of which there is at least one; they can be iterated over once.

    Args:
        inputs: folders, images, record files, or `-`.
        selection: where labels and groups come from, and which classes are kept.

    Attributes:
        first: the first record.
        tally: what was left out or is missing.
        error_ids: ids of the error records that were read so far.

    Raises:
        InputError: an input cannot be read, or none holds a record.
        UsageProblem: an option that cannot be read.
    """

    def __init__(self, inputs: Sequence[str], selection: Selection | None = None) -> None:
        self.inputs, self.tally = list(inputs), Tally()
        self.error_ids: set[str] = set()
        records = read_inputs(inputs, selection or Selection(), self.tally)
        first = next(records, None)
        if first is None:
            raise InputError(nothing_found(inputs, self.tally))
        self.first = first
        self._records = chain([first], records)
        self._filtered = bool(selection and selection.classes)

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            if record["schema"] == ERROR:
                self.error_ids.add(record["id"])
            yield record

    @property
    def names(self) -> list[str]:
        """The inputs as `run.json` names them."""
        return names_of(self.inputs)

    def total(self, execution: Execution) -> int | None:
        """The number of records, where a person sees progress and it can be known."""
        if not sys.stderr.isatty() or execution.quiet or execution.shard or self._filtered:
            return None
        return how_many(self.inputs)

    def print_notes(self) -> None:
        """Print what could not be read, what was left out, and what is missing."""
        for line in (*self.tally.failures(), *self.tally.notes()):
            note(line)


def nothing_found(inputs: Sequence[str], tally: Tally) -> str:
    """The message for inputs that hold nothing to work on, with what was left out of them."""
    left_out = "; ".join(tally.notes())
    return f"{', '.join(inputs)}: no images or records found" + (f" ({left_out})" if left_out else "")
