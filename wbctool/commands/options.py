"""Every option that two commands share, once, and how a command takes a bundle of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from wbctool.errors import UsageProblem

if TYPE_CHECKING:
    from wbctool.pipeline.step import Execution
    from wbctool.records.selection import Selection

_WHO = "Labels and groups"
_HOW = "Running"

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="IN", help="Folders, images, .jsonl record files, or - for records on stdin."),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Output folder.")]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of all chance.", rich_help_panel=_HOW)]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.", rich_help_panel=_HOW)]
Precision = Annotated[
    str, typer.Option(metavar="auto|float32|bf16", help="auto: as the run was trained.", rich_help_panel=_HOW)
]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Do part I of N (from 1).", rich_help_panel=_HOW)]
Jobs = Annotated[int, typer.Option(min=0, metavar="N", help="Workers; 0 for all cores.", rich_help_panel=_HOW)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.", rich_help_panel=_HOW)]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, on a terminal too.", rich_help_panel=_HOW)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make the output anew.", rich_help_panel=_HOW)]
AllowSynthetic = Annotated[
    bool, typer.Option("--allow-synthetic", help="Take composites in validation and test.", rich_help_panel=_WHO)
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Exit 0 although inputs failed.", rich_help_panel=_HOW)]


@dataclass(frozen=True)
class SelectionOptions:
    """Options of every command that reads images."""

    label_regex: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Label from the original file name.", rich_help_panel=_WHO),
    ] = None
    group_regex: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Group (patient, slide) from the id.", rich_help_panel=_WHO),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Table: image, label and/or group.", rich_help_panel=_WHO),
    ] = None
    classes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Keep these classes only.", rich_help_panel=_WHO)
    ] = None
    map: Annotated[list[str] | None, typer.Option(metavar="OLD=NEW", help="Rename a class.", rich_help_panel=_WHO)] = (
        None
    )

    def selection(self) -> Selection:
        """As the package takes it."""
        from wbctool.records.selection import Selection

        return Selection(self.label_regex, self.group_regex, self.labels, self.classes, tuple(self.map or ()))


@dataclass(frozen=True)
class RunOptions:
    """Options of every command that makes records."""

    overwrite: Overwrite = False
    skip_bad: SkipBad = False
    quiet: Quiet = False
    json: Json = False

    def execution(self, **more: Any) -> Execution:
        """As the package takes them, with what else a command knows."""
        from wbctool.pipeline.step import Execution

        return Execution(**vars(self), **more)


@dataclass(frozen=True)
class ExecutionOptions(RunOptions):
    """Options of every step that processes images one by one."""

    jobs: Jobs = 0
    shard: Shard = None
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask cluster, tcp://….", rich_help_panel=_HOW)
    ] = None


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Spread parameters whose type is an options bundle over the command line, and gather them again."""
    hints = get_type_hints(function, include_extras=True)
    spread: list[inspect.Parameter] = []
    bundles: dict[str, type] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if isinstance(kind, type) and is_dataclass(kind):
            bundles[name] = kind
            bundle_hints = get_type_hints(kind, include_extras=True)
            for field in fields(kind):
                spread.append(
                    inspect.Parameter(
                        field.name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=field.default,
                        annotation=bundle_hints[field.name],
                    )
                )
        else:
            spread.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))

    @functools.wraps(function)
    def call(**given: Any) -> Any:
        for name, kind in bundles.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        return function(**given)

    call.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    return call


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
