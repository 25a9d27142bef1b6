"""The app: the subcommand table in pipeline order, and errors turned into exit codes.

Nothing heavy is imported here: a subcommand's own module is imported when that subcommand runs.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperCommand, TyperGroup

from wbctool import PURPOSE, __version__, errors

COMMANDS = {
    "enhance": "Even out contrast, stain and noise of images: CLAHE, Reinhard, non-local means.",
    "segment": "Find white cells with their nuclei, red cells and platelets in smear images.",
    "split": "Add train, val and test to records without parting a group.",
    "naturalize": "Make composites of real cells and real fields, for training only.",
    "crop": "Cut one image, and its mask, per cell.",
    "train": "Train an attention classifier on image folders or records.",
    "predict": "Classify images with a trained run.",
    "evaluate": "Show honest figures for predictions, or for masks against truth.",
    "explain": "Show where a trained run looks, and score whether that is true.",
    "xgboost-fuse": "Fuse runs and what cells measure by gradient-boosted trees.",
    "info": "Say what a run folder, record file or image folder is.",
    "demo": "Draw a small synthetic smear set and run the whole chain on it.",
}

# typer carries click's exceptions under a private name; the public BadParameter leads to them.
_UsageError: Any = typer.BadParameter.__mro__[1]
_ClickException: Any = typer.BadParameter.__mro__[2]


OPTIONS = {
    "--version": "Print the version.",
    "--schema NAME": "Print the JSON Schema of a record: image, mask, cell, prediction or error.",
    "--debug": "Show the traceback of an error.",
    "--install-completion": "Install completion for this shell (--show-completion prints it).",
    "-h, --help": "Show this help; `wbctool COMMAND --help` shows that of a command.",
}


class _Ended(BaseException):
    """Carries an interrupt or a closed pipe past typer, which would end the process its own way."""


class Subcommands(TyperGroup):
    """Lists subcommands from the table and imports one only when it is called."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        # typer's own rich help imports a Markdown parser and a syntax highlighter: twice the time
        from rich.console import Console
        from rich.table import Table

        class Pipe(Console):
            def on_broken_pipe(self) -> None:
                raise BrokenPipeError

        console = Pipe(highlight=False)
        console.print("\n[bold]wbctool[/bold]: white-blood-cell microscopy from the shell\n")
        console.print("Usage: wbctool COMMAND [OPTIONS] IN...    IN: image folders, records, or -\n")
        for title, entries in (("Commands, in the order an image travels", COMMANDS), ("Options", OPTIONS)):
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 1), title=title)
            table.title_justify, table.title_style = "left", "bold"
            table.add_column(style="cyan", no_wrap=True)
            table.add_column()
            for name, text in entries.items():
                table.add_row(name, text)
            console.print(table)
            console.print()
        console.print("Example:  wbctool segment smears/ -o masks/ | wbctool crop - -o cells/\n", markup=False)
        console.print(PURPOSE, style="dim")

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, callback=None, help=COMMANDS[cmd_name])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise _Ended(error) from None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            _take_values_unread(self, ctx)
        try:
            return super().parse_args(ctx, args)  # --help and --schema print here
        except BrokenPipeError as error:
            raise _Ended(error) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f"did you mean {near[0]}" if near else f"choose from {', '.join(COMMANDS)}"
            raise errors.UsageProblem(f"{args[0]}: no such command; {hint}")
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            command = _completed(name, ctx) if ctx.resilient_parsing else _imported(name, ctx)
            command.name = name
        return name, command, rest


def _imported(name: str, ctx: Any) -> Any:
    """The command of a subcommand's module."""
    command = typer.main.get_command(import_module(f"wbctool.commands.{name.replace('-', '_')}").app)
    for parameter in command.get_params(ctx):
        _leave_out_python_types(parameter)
    return command


def _completed(name: str, ctx: Any) -> Any:
    """The command of a subcommand for a shell that completes it."""
    from wbctool.commands.completion import command_of

    command = command_of(name)
    _take_values_unread(command, ctx)
    return command


def _leave_out_python_types(parameter: Any) -> None:
    # typer would say <bool> at every flag, and <list[str]> at IN
    if getattr(parameter, "is_flag", False):
        parameter.metavar = ""
    elif parameter.param_type_name == "argument":
        parameter.display_type_rich = lambda ctx: None


def _take_values_unread(command: Any, ctx: Any) -> None:
    # completion reads no values, and typer's conversion of them imports pydantic
    for parameter in command.get_params(ctx):
        parameter.process_value = lambda _ctx, value: value


app = typer.Typer(
    cls=Subcommands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"wbctool {__version__}")
        raise typer.Exit


def _print_schema(name: str | None) -> None:
    if name:
        from wbctool.records import schema_text

        print(schema_text(name))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help=OPTIONS["--version"]),
    ] = False,
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema",
            callback=_print_schema,
            is_eager=True,
            metavar="NAME",
            help=OPTIONS["--schema NAME"],
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help=OPTIONS["--debug"])] = False,
) -> None:
    """White-blood-cell microscopy from the shell: image folders and JSON records in, the same out."""


def main() -> NoReturn:
    """Run the command line and leave with the exit code of `DESIGN` (0, 1, 2, 3, 4, 5, 130, 143)."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if debug:  # accepted anywhere on the line, as people add it to the end of what failed
        arguments.remove("--debug")
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job may ignore it
        signal.signal(signal.SIGINT, _interrupt)
    for name in ("stdin", "stdout", "stderr"):  # a shell may have closed them: >&-
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))
    for stream, errors_as in ((sys.stdout, "strict"), (sys.stderr, "backslashreplace")):
        # records are UTF-8 whatever the locale
        cast(TextIOWrapper, stream).reconfigure(encoding="utf-8", errors=errors_as)
    sys.exit(_run(arguments, debug))


_interrupts: list[int] = []


def _interrupt(number: int, _frame: Any) -> NoReturn:
    _interrupts.append(number)  # where Python drops the exception, as it does in weakref callbacks
    raise KeyboardInterrupt


def _terminate(_number: int, _frame: Any) -> NoReturn:
    raise errors.Terminated


def _run(arguments: list[str], debug: bool) -> int:
    try:
        code = app(args=arguments, prog_name="wbctool", standalone_mode=False)
        sys.stdout.flush()
        return _stopped(debug) if _interrupts else int(code or 0)
    except errors.WbctoolError as error:
        return _fail(str(error), error.exit_code, debug)
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "wbctool"
        message = error.format_message() or "a command is missing"
        return _fail(f"{message.rstrip('.')} (see `{where} --help`)", errors.USAGE, debug)
    except _ClickException as error:
        return _fail(error.format_message(), errors.USAGE, debug)
    except _Ended as ended:
        if isinstance(ended.args[0], BrokenPipeError):
            return _hang_up()
        return _stopped(debug)
    except BrokenPipeError:
        return _hang_up()
    except SystemExit as ended:  # so rich leaves, in typer's help, where the pipe is closed
        return _hang_up() if ended.code == 1 else int(ended.code or 0)
    except errors.Terminated:
        return _fail("terminated; run the same command again to go on", errors.TERMINATED, debug)
    except MemoryError as error:
        return _fail(f"out of memory ({error}); try fewer --jobs", errors.DEVICE, debug)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}", errors.BAD_INPUT, debug)
    except Exception as error:  # a bug: one line, and how to see more
        if type(error).__name__ == "OutOfMemoryError":
            return _fail(
                "the GPU is out of memory; try a smaller --batch-size or --device cpu",
                errors.DEVICE,
                debug,
            )
        if errors.NO_MEMORY in str(error):
            return _fail("out of memory; give more, or a smaller --size", errors.DEVICE, debug)
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        return _fail(f"bug: {message} (add --debug for the traceback)", errors.BUG, debug)


def _hang_up() -> int:
    # the reader has what it wanted; keep Python from complaining at shutdown
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return errors.DONE


def _stopped(debug: bool) -> int:
    return _fail("interrupted; run the same command again to go on", errors.INTERRUPTED, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(f"wbctool: {' '.join(message.split())}", file=sys.stderr)
    return code
