"""Options of the command line made from declared parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, make_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from wbctool.commands.options import numbers
from wbctool.pipeline.parameters import Parameters, about, choices_of, plain_type

_FORMS: dict[type, str] = {int: "N", float: "X", Path: "FILE"}
_FEW = 3  # methods that help names beside an option; of more it names none


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
    """The option of a field; its bounds are checked with the parameters."""
    field = next(iter(by_method.values()))
    kind = plain_type(field)
    option = "--" + key.replace("_", "-")
    only = f"{', '.join(by_method)}: " if len(by_method) < min(methods, _FEW + 1) else ""
    info = typer.Option(
        *([option] if kind is bool else []),
        metavar=None if kind is bool else _form(field),
        help=f"{only}{field.description}{_defaults({m: defaults.get(key, f.default) for m, f in by_method.items()})}",
        rich_help_panel=about(field, "panel") or None,
        parser=partial(numbers, option, count=len(get_args(field.annotation))) if _has_length(field) else None,
    )
    return Annotated[(kind if kind in (bool, int, float, Path) else str) | None, info]


def _has_length(field: FieldInfo) -> bool:
    """Whether it is a tuple of so many numbers; other lists validate what they are given."""
    return get_origin(field.annotation) is tuple and ... not in get_args(field.annotation)


def _form(field: FieldInfo) -> str:
    """How a value is written, such as `N` or `roi|box`."""
    return about(field, "form") or "|".join(map(str, choices_of(field))) or _FORMS.get(plain_type(field), "TEXT")


def _defaults(by_method: Mapping[str, Any]) -> str:
    """The default as help shows it: the most common one, then those of methods that have another."""
    shown = {method: _shown(default) for method, default in by_method.items()}
    common, _ = Counter(shown.values()).most_common(1)[0]
    others = [f"{method} {text}" for method, text in shown.items() if text != common]
    text = "; ".join(filter(None, [common, *others]))
    return f" ({text})" if text else ""


def _shown(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)
