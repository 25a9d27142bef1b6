"""The keys of a recipe as options of `train`, each written down once, in the recipe."""

from __future__ import annotations

from dataclasses import Field, fields, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wbctool.training.recipe import Recipe, read_recipe

_BEST, _ = read_recipe("best")  # what is done where no recipe is named


def _flag(own: Field[Any]) -> Any:
    """The option of a recipe's key; its limits are the recipe's own."""
    about = own.metadata
    kind = {"int": int, "float": float}.get(str(own.type), str)
    form = about.get("form") or "|".join(map(str, about.get("choices", ()))) or {int: "N", float: "X"}.get(kind)
    words = f"{about['help']} ({_shown(getattr(_BEST, own.name))})"
    return Annotated[kind | None, typer.Option(metavar=form, help=words, rich_help_panel=about["panel"])]


def _shown(default: Any) -> str:
    return "the weights'" if default is None else "none" if default in ((), "") else f"{default}"


_RECIPE_FLAGS = [own for own in fields(Recipe) if own.metadata["flag"]]


class Given:
    """The keys of a recipe that are flags of `train`; None where not given."""

    def given(self) -> dict[str, Any]:
        """All of them."""
        return {own.name: getattr(self, own.name) for own in _RECIPE_FLAGS}


if TYPE_CHECKING:
    RecipeOptions = Given
else:
    RecipeOptions = make_dataclass(
        "RecipeOptions", [(own.name, _flag(own), None) for own in _RECIPE_FLAGS], bases=(Given,), frozen=True
    )
