"""Parameters: values that people choose, each declared once with its type, bounds, default and help.

A subclass of `Parameters` is a pydantic model. Command-line options, help, completion, validation and the tables of the
README are made from its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from wbctool.errors import UsageProblem

Choices = Sequence[Any] | Callable[[], Sequence[Any]]


P = TypeVar("P", bound="Parameters")


class Parameters(BaseModel):
    """Values that a method, a loss or a recipe takes; immutable, and without unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_choices(self: P) -> P:
        """Refuse values that are not among the choices of their field, also of parameters made in Python."""
        for name, field in type(self).model_fields.items():
            choices, value = choices_of(field), getattr(self, name)
            if choices and value is not None and value not in choices:
                raise UsageProblem(f"{name} {value}: choose from {', '.join(map(str, choices))}")
        return self


def parameter(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Choices | None = None,
    form: str = "",
    panel: str = "",
    flags: tuple[str, ...] = (),
    option: bool = True,
) -> Any:
    """Declare a field of `Parameters`.

    Args:
        default: value where none is given.
        help: one line.
        low: lowest value.
        high: highest value.
        choices: values to choose from, or a function that gives them; the choices of a `Literal` are known.
        form: how the value is written, such as `R,G,B`; by default from the type.
        panel: heading under which help shows the option.
        flags: names of the option, where it is not called as the field.
        option: whether it is an option of the command line.
    """
    more: Any = {"choices": choices, "form": form, "panel": panel, "flags": flags, "option": option}
    return Field(default, ge=low, le=high, description=help, json_schema_extra=more)


def about(field: FieldInfo, key: str) -> Any:
    """What `parameter` declares of a field: `choices`, `form`, `panel`, `flags` or `option`."""
    extra = field.json_schema_extra
    return extra.get(key) if isinstance(extra, dict) else None


def choices_of(field: FieldInfo) -> tuple[Any, ...]:
    """The values that a field may have, where these are listed; else none."""
    choices = about(field, "choices")
    if choices:
        return tuple(choices() if callable(choices) else choices)
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


def bounds_of(field: FieldInfo) -> tuple[float | None, float | None]:
    """The lowest and the highest value of a field, both included; None for no bound."""
    bounds = [next((getattr(one, key) for one in field.metadata if hasattr(one, key)), None) for key in ("ge", "le")]
    return bounds[0], bounds[1]


def plain_type(field: FieldInfo) -> type[Any]:
    """The type of a field's values: `int` of `int | None`, `str` of a `Literal` of words."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)] or [field.annotation]
    kind = get_origin(field.annotation) if get_origin(field.annotation) in (tuple, dict, list) else kinds[0]
    if get_origin(field.annotation) is Literal or get_origin(kind) is Literal:
        return type(choices_of(field)[0])
    kind = get_origin(kind) or kind
    return kind if isinstance(kind, type) else str


def option_name(name: str, model: type[Parameters] | None = None) -> str:
    """The option that gives a parameter."""
    field = model.model_fields.get(name) if model else None
    flags = about(field, "flags") if field else ()
    return flags[0] if flags else f"--{name.replace('_', '-')}"


def checked(model: type[P], values: Mapping[str, Any], named: Callable[[str], str], base: P | None = None) -> P:
    """Parameters with these values, validated; others keep their value in `base`, or their default.

    Args:
        model: class of the parameters.
        values: by name.
        named: gives the option, or the place in a file, that a name is shown as in errors.
        base: over which the values go.

    Raises:
        UsageProblem: naming the first value that is not valid, and which values are.
    """
    for name, value in values.items():
        field = model.model_fields.get(name)
        allowed = choices_of(field) if field else ()
        if allowed and value is not None and value not in allowed:
            raise UsageProblem(f"{named(name)} {value}: choose from {', '.join(map(str, allowed))}")
    try:
        return model.model_validate({**(base.model_dump() if base else {}), **values})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if name not in model.model_fields:
            raise UsageProblem(
                f"{named(name)}: unknown parameter; choose from {', '.join(model.model_fields)}"
            ) from None
        field = model.model_fields[name]
        wanted = str(first["ctx"]["error"]) if first["type"] == "value_error" else wanted_of(field)
        raise UsageProblem(f"{named(name)} {values.get(name)}: {wanted}") from None


def wanted_of(field: FieldInfo) -> str:
    """What to give for a field, such as `give a whole number from 16 to 2048`."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", dict: "a table"}
    low, high = bounds_of(field)
    if low is None and high is None:
        limits = ""
    elif high is None:
        limits = f" from {low:g}"
    else:
        limits = f" from {low:g} to {high:g}" if low is not None else f" up to {high:g}"
    return f"give {words.get(plain_type(field), 'another value')}{limits} ({(field.description or '').rstrip('.')})"
