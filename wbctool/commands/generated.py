"""Options of the command line made from declared parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from wbctool.pipeline.parameters import Parameters, about, bounds_of, choices_of, plain_type

_FORMS: dict[type, str] = {int: "N", float: "X", Path: "FILE"}


class GivenOptions:
    """A bundle of options, each None where it was not given."""

    def given(self) -> dict[str, Any]:
        """The values that were given, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}


def options_of(
    name: str, models: Mapping[str, type[Parameters]], defaults: Mapping[str, Any] | None = None
) -> type[GivenOptions]:
    """A bundle with an option for each field of some parameters; a field of several is one option.

    Args:
        name: of the class that is made.
        models: parameters by the name of the method that takes them; help says which one where there are several.
        defaults: what help shows in place of the fields' own defaults, by name of the field.
    """
    takers: dict[str, dict[str, FieldInfo]] = {}
    for method, model in models.items():
        for key, field in model.model_fields.items():
            if about(field, "option") is not False:
                takers.setdefault(key, {})[method] = field
    bundle = [(key, _option(key, by_method, len(models), defaults or {}), None) for key, by_method in takers.items()]
    return make_dataclass(name, bundle, bases=(GivenOptions,), frozen=True)


def _option(key: str, by_method: Mapping[str, FieldInfo], methods: int, defaults: Mapping[str, Any]) -> Any:
    """The option of a field."""
    field = next(iter(by_method.values()))
    kind = plain_type(field)
    takes = kind if kind in (bool, int, float, Path) else str
    form = about(field, "form") or "|".join(map(str, choices_of(field))) or _FORMS.get(kind, "TEXT")
    low, high = bounds_of(field) if takes in (int, float) else (None, None)
    only = f"{', '.join(by_method)}: " if len(by_method) < methods else ""
    flag = [f"--{key.replace('_', '-')}"] if kind is bool else []
    option = typer.Option(
        *flag,
        metavar=None if kind is bool else form,
        min=low,
        max=high,
        help=f"{only}{field.description}{_defaults(key, by_method, defaults)}",
        rich_help_panel=about(field, "panel") or None,
    )
    return Annotated[takes | None, option]


def _defaults(key: str, by_method: Mapping[str, FieldInfo], defaults: Mapping[str, Any]) -> str:
    """The default as help shows it, of each method where they differ."""
    shown = {method: _shown(defaults.get(key, field.default)) for method, field in by_method.items()}
    if len(set(shown.values())) == 1:
        text = next(iter(shown.values()))
    else:
        text = "; ".join(f"{method} {text}" for method, text in shown.items() if text)
    return f" ({text})" if text else ""


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return (
        ""
        if default is None or isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )
