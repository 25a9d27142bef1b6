"""How images are classified."""

from __future__ import annotations

from typing import Any

from wbctool.pipeline.parameters import Parameters, parameter

_SYMMETRIES = 8  # of the square


class PredictionOptions(Parameters):
    """How images are classified."""

    threshold: float | None = parameter(
        None, "Less confident predictions are marked uncertain.", low=0, high=1, form="P"
    )
    coverage: float | None = parameter(
        None, "Also the set of classes that holds the true one with probability P.", low=0.5, high=0.999, form="P"
    )
    tta: bool = parameter(False, "Mean over all 8 flips and quarter turns. (as the run was trained)")
    device: str = parameter("auto", "Where to compute.", form="auto|cpu|cuda", panel="Running")
    precision: str = parameter("auto", "auto: as the run was trained.", form="auto|float32|bf16", panel="Running")

    @property
    def chosen(self) -> dict[str, Any]:
        """What differs from how a run was trained, as records keep it."""
        views = {"views": _SYMMETRIES} if self.tta else {}
        return views | ({"precision": self.precision} if self.precision != "auto" else {})
