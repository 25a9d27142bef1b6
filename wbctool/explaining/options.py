"""Which maps of a run are computed, and what is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

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


class ExplanationOutput(Parameters):
    """What is written beside records and scores."""

    sheet: int | None = parameter(None, "Sheets of N panels a class; right, wrong apart.", low=1, form="N")
    maps: bool = parameter(False, "Also the maps, as .npz.")
    no_panels: bool = parameter(False, "Records and scores only.")


@dataclass
class ExplanationResult:
    """What was explained."""

    outcome: Outcome = field(default_factory=Outcome)
    counts: Counter[str] = field(default_factory=Counter)  # images that were left out or lack something, by reason
    summary: dict[str, Any] = field(default_factory=dict)  # as in `scores.json`
