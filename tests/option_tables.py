"""The option tables of the README, and the table that shells complete from, made from the commands themselves.

    uv run python tests/option_tables.py

writes them: a table under each command, one of the options that commands share, and `completion.json`. A test fails
where they are not current.
"""

import json
import re
from importlib import import_module
from pathlib import Path

import typer

from wbctool.cli import COMMANDS
from wbctool.commands import completion

README = Path(__file__).parents[1] / "README.md"
COMPLETION = Path(completion.__file__).with_name(completion.TABLE)
SHARED = ("Labels and groups", "Running")  # panels of the help
START = "<details><summary>"


def parameters_of(name):
    """The options and arguments of a command, without `--help`."""
    return typer.main.get_command(import_module(f"wbctool.commands.{name.replace('-', '_')}").app).params


def options_of(name):
    """The options of a command, without `--help`."""
    return [parameter for parameter in parameters_of(name) if parameter.param_type_name == "option"]


def is_shared(option):
    """Whether it is one of those that most commands have."""
    return option.rich_help_panel in SHARED


def names_of(option):
    """`--out`, `-o`."""
    return ", ".join(f"`{name}`" for name in sorted(option.opts, key=len, reverse=True))


def table(title, options):
    """A folded table of options."""
    lines = ["| option | value | what it does |", "| --- | --- | --- |"]
    for option in options:
        value = "" if option.is_flag or not option.metavar else f"`{option.metavar}`"
        given = option.default
        default = "" if callable(given) or given in (None, False, ()) else f" Default: {given}."
        cells = [text.replace("|", "\\|") for text in (names_of(option), value, f"{option.help}{default}")]
        lines.append(f"| {' | '.join(cells)} |")
    body = "\n".join(lines)
    return f"{START}{title}</summary>\n\n{body}\n\n</details>\n"


def of_command(name):
    """The table of a command, and the names of the shared options that it has."""
    options = options_of(name)
    shared = ", ".join(names_of(option) for option in options if is_shared(option))
    text = table(f"Options of <code>wbctool {name}</code>", [option for option in options if not is_shared(option)])
    return text + (f"\n[Shared options](#shared-options): {shared}.\n" if shared else "")


def shared_options():
    """The options of the shared panels, each once, by panel."""
    option_of_name = {}
    for name in COMMANDS:
        for option in filter(is_shared, options_of(name)):
            option_of_name.setdefault(option.opts[0], option)
    ordered = sorted(option_of_name.values(), key=lambda option: SHARED.index(option.rich_help_panel))
    return table("Options that several commands have", ordered)


def with_tables(text):
    """The README with current tables at the end of the sections of commands and of shared options."""
    sections = {f"\n### {name}\n": of_command(name) for name in COMMANDS}
    for heading, made in {**sections, "\n## Shared options\n": shared_options()}.items():
        start = text.index(heading)
        end = start + 1 + re.search(r"\n##", text[start + 1 :]).start()
        kept = text[start:end].partition(START)[0].rstrip()
        text = f"{text[:start]}{kept}\n\n{made}{text[end:]}"
    return text


def completion_table():
    """The text of `completion.json`: modules, and the parameters of each command, one a line."""
    commands = {name: ",\n".join(map(json.dumps, completion.entries_of(name))) for name in COMMANDS}
    body = ",\n".join(f'"{name}": [\n{text}\n]' for name, text in commands.items())
    return f'{{\n"modules": {json.dumps(completion.modules())},\n"commands": {{\n{body}\n}}\n}}\n'


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
    COMPLETION.write_text(completion_table())
