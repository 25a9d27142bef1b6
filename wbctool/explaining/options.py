"""Which maps of a run are computed, and what is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from wbctool.errors import UsageProblem
from wbctool.explaining.method import METHODS
from wbctool.pipeline.parameters import Parameters, parameter
from wbctool.pipeline.step import Outcome

PREDICTED, LABEL = "predicted", "label"  # in place of a class name
ALL = "all"  # splits


class MapOptions(Parameters):
    """Which maps are computed, and how they are scored; `parameters` are those of the methods."""

    methods: tuple[str, ...] = parameter(
        ("gradcam",), f"{', '.join(METHODS.names())}; repeatable.", form="NAME", flags=("--method",)
    )
    of_class: str = parameter(
        PREDICTED, "Explained class: predicted, label, or a name.", form="NAME", flags=("--class",)
    )
    layers: tuple[str, ...] = parameter(
        (), "Layer to explain; repeatable. (the last with a map)", form="NAME", flags=("--layer",)
    )
    views: int | None = parameter(None, "Flips and turns for a mean map. (as the run predicts)", low=1, high=8)
    faithfulness: bool = parameter(False, "Also deletion and insertion.")
    parameters: dict[str, Any] = parameter({}, "Parameters of the methods, by name.", option=False)

    def settings(self) -> dict[str, Any]:
        """Return the options by name, parameters among them, as `run.json` keeps them."""
        return {**self.model_dump(exclude={"parameters"}), **self.parameters}


class ExplanationOutput(Parameters):
    """What is written beside records and scores."""

    sheet: int | None = parameter(None, "Sheets of N panels a class; right, wrong apart.", low=1, form="N")
    maps: bool = parameter(False, "Also the maps, as .npz.")
    no_panels: bool = parameter(False, "Records and scores only.")

    @property
    def panels(self) -> bool:
        """Whether a picture of each image is written."""
        return not self.no_panels

    def check(self, shard: str | None) -> None:
        """Refuse what does not go together.

        Raises:
            UsageProblem: sheets without panels, or of a part of the images.
        """
        if self.sheet and not self.panels:
            raise UsageProblem("--sheet is made of panels; leave out --no-panels")
        if self.sheet and shard:
            raise UsageProblem("--sheet needs all panels; leave out --shard")


@dataclass
class ExplanationResult:
    """What was explained.

    Attributes:
        outcome: counts of the step.
        counts: images that were left out or lack something, by reason.
        summary: as in `scores.json`.
    """

    outcome: Outcome = field(default_factory=Outcome)
    counts: Counter[str] = field(default_factory=Counter)
    summary: dict[str, Any] = field(default_factory=dict)
