"""What is explained, and what is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from wbctool.errors import UsageProblem
from wbctool.pipeline.step import Outcome

PREDICTED, LABEL = "predicted", "label"  # in place of a class name
ALL = "all"  # splits


@dataclass(frozen=True)
class MapOptions:
    """How maps are made.

    Attributes:
        methods: of the registry of methods.
        of_class: the class to explain: `predicted`, `label` (the image's), or a class name.
        layers: the layer to explain; empty for the last with a map. Maps of several layers are averaged.
        channels: for Score-CAM, how many channels with the highest peaks are used; None for all.
        views: flips and quarter turns that a map is averaged over; None for those that the run predicts by.
        faithfulness: also compute deletion and insertion.
    """

    methods: tuple[str, ...] = ("gradcam",)
    of_class: str = PREDICTED
    layers: tuple[str, ...] = ()
    channels: int | None = None
    views: int | None = None
    faithfulness: bool = False


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
