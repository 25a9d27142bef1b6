"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wbctool.errors import UsageProblem
from wbctool.pipeline.parameters import parameter
from wbctool.pipeline.step import Execution

if TYPE_CHECKING:
    from wbctool.records.selection import Selection

_LABELS = "Labels and groups"
_RUNNING = "Running"

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="IN", help="Folders, images, .jsonl record files, or - for records on stdin."),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Output folder.")]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Random seed.", rich_help_panel=_RUNNING)]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.", rich_help_panel=_RUNNING)]
Precision = Annotated[
    str, typer.Option(metavar="auto|float32|bf16", help="auto: as the run was trained.", rich_help_panel=_RUNNING)
]
Jobs = Annotated[int, typer.Option(min=0, metavar="N", help="Workers; 0 for all cores.", rich_help_panel=_RUNNING)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.", rich_help_panel=_RUNNING)]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, on a terminal too.", rich_help_panel=_RUNNING)]
AllowSynthetic = Annotated[
    bool, typer.Option("--allow-synthetic", help="Take composites in validation and test.", rich_help_panel=_LABELS)
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Exit 0 although inputs failed.", rich_help_panel=_RUNNING)]


@dataclass(frozen=True)
class FieldSelectionOptions:
    """Where labels and groups come from."""

    label_regex: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Label from the original file name.", rich_help_panel=_LABELS)
    ] = None
    group_regex: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Group (patient, slide) from the id.", rich_help_panel=_LABELS)
    ] = None
    labels: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Table: image, label and/or group.", rich_help_panel=_LABELS)
    ] = None
    map: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Rename a class.", rich_help_panel=_LABELS)
    ] = None

    def selection(self, classes: str | None = None) -> Selection:
        """As the package takes it."""
        from wbctool.records.selection import Selection

        return Selection(self.label_regex, self.group_regex, self.labels, classes, tuple(self.map or ()))


@dataclass(frozen=True)
class SelectionOptions(FieldSelectionOptions):
    """The same, and which classes are kept: options of every command that reads images."""

    classes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Keep these classes only.", rich_help_panel=_LABELS)
    ] = None

    def selection(self, classes: str | None = None) -> Selection:
        """As the package takes it."""
        return super().selection(self.classes)


class CommandExecution(Execution):
    """How a command is run: as `Execution`, and records go to stdout where a pipe or --json wants them."""

    prints: bool = parameter(True, "Print records on stdout, as a command does.", option=False)


def numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        UsageProblem: they are not numbers, or not `count` of them.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise UsageProblem(f"{option} {text}: give {count} numbers with commas between")
    return values


def parse_pairs(pairs: Iterable[str], option: str) -> dict[str, Any]:
    """`key=value` pairs with numbers, true, false and none read as such.

    Raises:
        UsageProblem: a pair without `=`.
    """
    import ast

    words = {"true": True, "false": False, "none": None}
    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageProblem(f"{option} {pair}: write it as key=value")
        try:
            parsed[key] = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            parsed[key] = text
    return parsed


def new_app() -> typer.Typer:
    """The app of one subcommand."""
    return typer.Typer(
        rich_markup_mode="rich",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
