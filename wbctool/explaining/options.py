"""Which maps of a run are computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

PREDICTED, LABEL = "predicted", "label"  # in place of a class name


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
