"""Training: recipes, losses, phases, the loop; `train_run` does what `wbctool train` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.pipeline.exports import lazy_exports

if TYPE_CHECKING:
    from wbctool.training.experiment import TrainedRun, train_run
    from wbctool.training.recipe import Recipe, TrainingOptions, TrainingPlan
    from wbctool.training.recipe_files import choose_recipe

__all__ = ["Recipe", "TrainedRun", "TrainingOptions", "TrainingPlan", "choose_recipe", "train_run"]
__getattr__ = lazy_exports(
    __name__,
    {
        "Recipe": "recipe",
        "TrainedRun": "experiment",
        "TrainingOptions": "recipe",
        "TrainingPlan": "recipe",
        "choose_recipe": "recipe_files",
        "train_run": "experiment",
    },
)
