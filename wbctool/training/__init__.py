"""Training: recipes, losses, phases, the loop; `train_run` does what `wbctool train` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wbctool.training.experiment import TrainedRun, train_run
    from wbctool.training.recipe import Recipe, TrainingOptions, TrainingPlan
    from wbctool.training.recipe_files import choose_recipe

__all__ = ["Recipe", "TrainedRun", "TrainingOptions", "TrainingPlan", "choose_recipe", "train_run"]
_MODULES = {"Recipe": "recipe", "choose_recipe": "recipe_files", "TrainingOptions": "recipe", "TrainingPlan": "recipe"}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the help of `train` imports no records, and no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'experiment')}"), name)
