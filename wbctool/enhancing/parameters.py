"""The parameters of enhancing."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from wbctool.errors import UsageProblem
from wbctool.pipeline.parameters import Parameters, parameter


class EnhanceParameters(Parameters):
    """Contrast and noise; the reference of Reinhard's normalisation comes beside."""

    clahe: bool = parameter(False, "Even out contrast.")
    clip: float = parameter(2.0, "CLAHE: contrast limit.", low=0.1, high=100)
    tiles: int = parameter(8, "CLAHE: tiles a side.", low=1, high=64)
    denoise: Literal["nlm"] | None = parameter(None, "Non-local means.")
    strength: float = parameter(5.0, "Non-local means: strength.", low=0.1, high=100)

    @model_validator(mode="after")
    def _check(self) -> EnhanceParameters:
        given = self.model_fields_set
        if not self.clahe and given & {"clip", "tiles"}:
            raise UsageProblem("--clip and --tiles go with --clahe")
        if not self.denoise and "strength" in given:
            raise UsageProblem("--strength goes with --denoise nlm")
        return self
