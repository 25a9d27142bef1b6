"""Which maps of a run are computed, and what is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from wbctool.errors import UsageProblem
from wbctool.pipeline.step import Outcome

PREDICTED, LABEL = "predicted", "label"  # in place of a class name
ALL = "all"  # splits


@dataclass(frozen=True)
class MapOptions:
    """Which maps are computed; see `Explainer`.

    Attributes:
        methods: names from `METHODS`.
        of_class: the explained class: `predicted`, `label` (that of the image), or a class name.
        layers: their names, in each run; empty for the last feature map.
        views: number of flips and turns that maps are averaged over; None for those the run predicts by.
        faithfulness: whether deletion and insertion are computed.
        parameters: values of the methods' parameters, by name.
    """

    methods: tuple[str, ...] = ("gradcam",)
    of_class: str = PREDICTED
    layers: tuple[str, ...] = ()
    views: int | None = None
    faithfulness: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return the options by name, parameters among them, as `run.json` keeps them."""
        options = asdict(self)
        parameters = options.pop("parameters")
        return {**options, **parameters}


@dataclass(frozen=True)
class ExplanationOutput:
    """What is written beside records and scores.

    Attributes:
        panels: a picture of each image.
        maps: the maps themselves, as `.npz`.
        sheet: panels on a contact sheet per class; None for no sheets.
    """

    panels: bool = True
    maps: bool = False
    sheet: int | None = None

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
