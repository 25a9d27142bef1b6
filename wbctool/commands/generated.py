"""Options of the command line, made from declared parameters and from bundles of options."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from wbctool.commands.options import numbers
from wbctool.pipeline.parameters import Parameters, about, checked, choices_of, option_name, plain_type

_FORMS: dict[type, str] = {int: "N", float: "X", Path: "FILE"}
_FEW = 3  # methods that help names beside an option; of more it names none


class GivenOptions:
    """A bundle of options, each None where it was not given."""

    def given(self) -> dict[str, Any]:
        """The values that were given, by name."""
        return _given({field.name: getattr(self, field.name) for field in fields(self)})  # type: ignore[arg-type]


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


@dataclass(frozen=True)
class Only:
    """In the annotation of an argument: the fields of its parameters that are options of the command."""

    fields: tuple[str, ...]


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Spread the arguments of a command that are `Parameters`, or bundles of options, over the command line.

    Each of their fields becomes an option; the function gets the validated parameters, or the bundle.
    """
    hints = get_type_hints(function, include_extras=True)
    spread: list[inspect.Parameter] = []
    makers: dict[str, tuple[list[str], Callable[[dict[str, Any]], Any]]] = {}
    for name, argument in inspect.signature(function).parameters.items():
        options, make = _spread(hints[name])
        if make:
            makers[name] = ([option.name for option in options], make)
        spread += options or [argument.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])]

    @functools.wraps(function)
    def call(**given: Any) -> Any:
        made = {name: make({key: given.pop(key) for key in keys}) for name, (keys, make) in makers.items()}
        return function(**given, **made)

    call.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    call.__annotations__ = {option.name: option.annotation for option in spread}
    return call


def _spread(kind: Any) -> tuple[list[inspect.Parameter], Callable[[dict[str, Any]], Any] | None]:
    """The options of a type, and what makes its value of theirs; nothing for a type that is one option itself."""
    only = next((one.fields for one in getattr(kind, "__metadata__", ()) if isinstance(one, Only)), None)
    kind = get_args(kind)[0] if only else kind
    if not isinstance(kind, type):
        return [], None
    if issubclass(kind, Parameters):
        model = kind.model_fields
        shown = [key for key in only or model if about(model[key], "option") is not False]
        options = [_argument(key, _option(key, {"": model[key]}, 1, {}), None) for key in shown]
        return options, lambda given: checked(kind, _given(given), partial(option_name, model=kind))
    if is_dataclass(kind):
        types = get_type_hints(kind, include_extras=True)
        return [_argument(own.name, types[own.name], own.default) for own in fields(kind)], lambda given: kind(**given)
    return [], None


def _argument(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were given; lists as tuples."""
    known = {name: value for name, value in values.items() if value not in (None, [])}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}


def _option(key: str, by_method: Mapping[str, FieldInfo], methods: int, defaults: Mapping[str, Any]) -> Any:
    """The option of a field; its bounds are checked with the parameters."""
    field = next(iter(by_method.values()))
    kind = plain_type(field)
    flags = about(field, "flags") or (("--" + key.replace("_", "-"),) if kind is bool else ())
    only = f"{', '.join(by_method)}: " if len(by_method) < min(methods, _FEW + 1) else ""
    info = typer.Option(
        *flags,
        metavar=None if kind is bool else _form(field),
        help=f"{only}{field.description}{_defaults({m: defaults.get(key, f.default) for m, f in by_method.items()})}",
        rich_help_panel=about(field, "panel") or None,
        parser=_numbers_parser(key, field),
    )
    single = kind if kind in (bool, int, float, Path) else str
    return Annotated[(list[str] if _is_repeated(field) else single) | None, info]


def _is_repeated(field: FieldInfo) -> bool:
    """Whether the option may be given several times, as for a tuple of any number of words."""
    return get_args(field.annotation) == (str, ...)


def _numbers_parser(key: str, field: FieldInfo) -> Callable[[str], tuple[float, ...]] | None:
    """What reads a tuple of so many numbers; None for other fields."""
    kinds = get_args(field.annotation)
    if get_origin(field.annotation) is not tuple or ... in kinds:
        return None
    return partial(numbers, option_name(key), count=len(kinds))


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
