"""The phases of a training: the head alone, then fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from wbctool.training.recipe import Recipe


@dataclass(frozen=True)
class Phase:
    """A phase of a training.

    Attributes:
        name: as progress and the history call it.
        epochs: its length.
        unfreeze: which layers of the backbone learn, as the recipe says it.
        schedule: name of the learning-rate schedule.
    """

    name: str
    epochs: int
    unfreeze: str
    schedule: str

    @property
    def is_frozen(self) -> bool:
        """Whether the backbone learns nothing."""
        return self.name == "frozen"


def phases_of(recipe: Recipe) -> list[Phase]:
    """Return the frozen phase and the fine-tuning after it, either of which may have no epochs."""
    frozen = min(recipe.frozen_epochs, recipe.epochs)
    return [
        Phase("frozen", frozen, "none", recipe.frozen_schedule),
        Phase("fine-tune", recipe.epochs - frozen, recipe.unfreeze, recipe.schedule),
    ]
