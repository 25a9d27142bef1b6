"""Networks and measures of the cell, fused by gradient-boosted trees.

XGBoost (Chen and Guestrin 2016) takes the networks' features, their probabilities, and the measures of the cell. It may
start from the networks' log-probabilities, which the trees then correct.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import nn

from wbctool.errors import InputError
from wbctool.modeling.architecture import STRICT, JsonArchitecture
from wbctool.modeling.classifier import resized
from wbctool.modeling.ensembles import Members
from wbctool.modeling.model_types import Model, ModelType, build
from wbctool.modeling.predictor import deep_features, rounded

if TYPE_CHECKING:
    from xgboost import Booster  # takes a second: only fused runs need it

DEEP, PROBABILITIES, MORPHOLOGY = "deep", "probabilities", "morphology"
PARTS = (DEEP, PROBABILITIES, MORPHOLOGY)
BOOSTER = "model.ubj"
_SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True, config=STRICT)
class FusedArchitecture(JsonArchitecture):
    """What is needed to build a fused model again."""

    fused: Literal["xgboost"]
    members: Members  # architectures of the networks; may be empty
    names: tuple[str, ...]  # unique ones of their run folders
    widths: tuple[int, ...]  # number of features of each member
    parts: tuple[str, ...]  # those of `PARTS` that the trees take
    start: tuple[float, ...]  # weight of each member's log-probabilities where trees start; empty: they start from 0
    classes: tuple[str, ...]  # names, in the order of the outputs
    size: int  # side of the input, the largest of the members', pixels
    unmeasured: bool = False  # whether cells without a mask were trained on; else the model refuses them
    symmetries: int = 1  # each member averages over its own
    trees: ClassVar[bool] = True

    @property
    def backbone(self) -> str:
        """The members' backbones."""
        return "+".join([*(member.backbone for member in self.members), "xgboost"])

    @property
    def measures(self) -> bool:
        """Whether it takes measures of the cell."""
        return MORPHOLOGY in self.parts

    @property
    def needs_mask(self) -> bool:
        """Whether it refuses images without a mask."""
        return self.measures and not self.unmeasured

    def features(self) -> list[tuple[str, str]]:
        """Return the name and the family of each feature, in order."""
        features = []
        for name, width, member in zip(self.names, self.widths, self.members, strict=True):
            if DEEP in self.parts:
                features += [(f"{name}.deep.{number:04}", f"{name}: deep") for number in range(width)]
            if PROBABILITIES in self.parts:
                features += [
                    (f"{name}.probability.{number}.{_without_special_characters(label)}", f"{name}: probabilities")
                    for number, label in enumerate(member.classes)
                ]
        if self.measures:
            from wbctool.measuring import morphology  # takes half a second

            features += [(name, morphology.family_of(name)) for name in morphology.names()]
        return features

    @property
    def deep_features(self) -> int:
        """How many features, the first ones, come from networks; these are finite."""
        widths = (width for width in self.widths if DEEP in self.parts)
        classes = (len(member.classes) for member in self.members if PROBABILITIES in self.parts)
        return sum(widths) + sum(classes)

    def to_json(self) -> dict[str, Any]:
        """Return what `model.json` keeps."""
        return {**asdict(self), "backbone": self.backbone, "features": [name for name, _ in self.features()]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FusedArchitecture:
        """Read what `to_json` returned; ValueError where this version of wbctool has other features."""
        architecture = super().from_json(value)
        check_names(value["features"], [name for name, _ in architecture.features()])
        return architecture


def _without_special_characters(name: str) -> str:
    """The name without characters that XGBoost refuses."""
    return "".join("_" if letter in "[]<" or letter.isspace() else letter for letter in name)


def run_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return a unique name for each run, by its folder."""
    names: list[str] = []
    for path in paths:
        name = stem = _without_special_characters(path.resolve().name) or "run"
        number = 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return tuple(names)


def check_names(names: Sequence[str], expected: Sequence[str]) -> None:
    """Refuse, by ValueError, features that differ from the expected ones, or are in another order."""
    for number, (name, expected_name) in enumerate(zip(names, expected, strict=False)):
        if name != expected_name:
            raise ValueError(f"feature {number} is {name}, not {expected_name}")
    if len(names) != len(expected):
        raise ValueError(f"{len(names):,} features, not {len(expected):,}")


class FusedModel(Model):
    """Log-probabilities (n, classes) from images and measures of their cells.

    Input is a batch (n, 3, size, size), and, where `architecture.measures`, measures (n, m) with NaN for missing ones.
    """

    architecture: FusedArchitecture
    booster: Booster  # set with its trees, or by `load_files`

    def __init__(self, architecture: FusedArchitecture, members: Sequence[Model] | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        self.members = nn.ModuleList(map(build, architecture.members) if members is None else members)
        self._device = ""  # of the booster

    def forward(self, images: torch.Tensor, measures: np.ndarray | None = None) -> torch.Tensor:
        precision = "bf16" if torch.is_autocast_enabled(images.device.type) else "float32"
        members = cast("list[Model]", list(self.members))
        outputs = [deep_features(member, resized(images, member.architecture.size), precision) for member in members]
        rows = feature_matrix(self.architecture.parts, outputs, measures)
        start = weighted_margins([probabilities for _, probabilities in outputs], self.architecture.start)
        margins = self.boosted(rows, start)
        return torch.log_softmax(torch.from_numpy(margins).double(), 1).to(images.device)

    def boosted(self, rows: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        """Return the trees' margins (n, classes), float32, for features; NaN where a deep feature is not finite.

        `rows` (n, m) are as `feature_matrix` returns them; `start` has the margins to start from, (n, classes); None
        for zero.
        """
        import xgboost

        device = next((parameter.device for parameter in self.parameters()), torch.device("cpu"))
        if self._device != str(device):  # also within an ensemble, which moves without calling this model
            self._device = str(device)
            self.booster.set_param({"device": self._device})
        names = [name for name, _ in self.architecture.features()]
        invalid = ~np.isfinite(rows[:, : self.architecture.deep_features]).all(1)
        rows = np.where(invalid[:, None], np.nan, rows)
        start = None if start is None else np.where(invalid[:, None], np.float32(0), start)
        matrix = xgboost.DMatrix(rows, feature_names=names, base_margin=start, missing=np.nan)
        margins = self.booster.predict(matrix, output_margin=True).reshape(len(rows), -1)
        margins[invalid] = np.nan
        return margins

    def files(self) -> dict[str, bytes]:
        """Return the contents of the file with the trees, by name."""
        return {BOOSTER: bytes(self.booster.save_raw("ubj"))}

    def load_files(self, read: Callable[[str], bytes]) -> None:
        """Load what `files` returned; `read` returns the bytes of a name."""
        from xgboost import Booster

        self.booster, self._device = Booster(model_file=bytearray(read(BOOSTER))), ""
        check_names(self.booster.feature_names or [], [name for name, _ in self.architecture.features()])


def feature_matrix(
    parts: Sequence[str], outputs: Sequence[tuple[np.ndarray, np.ndarray]], measures: np.ndarray | None
) -> np.ndarray:
    """Return the features of images, (n, features), float32, in the order of `FusedArchitecture.features`.

    `outputs` are the features (n, width) and probabilities (n, classes) of each member; `measures` (n, m) are those of
    the cells, where `parts` has morphology.
    """
    blocks = []
    for features, probabilities in outputs:
        blocks += [features] if DEEP in parts else []
        blocks += [rounded(probabilities.astype(np.float32))] if PROBABILITIES in parts else []
    if MORPHOLOGY in parts:
        if measures is None:
            raise InputError("this run measures cells; give records with masks, as `wbctool crop` makes them")
        blocks.append(rounded(measures))
    return np.concatenate(blocks, axis=1, dtype=np.float32)


def weighted_margins(probabilities: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray | None:
    """Return the margins that trees start from, (n, classes), float32; None without weights."""
    return weighted_log_probabilities(probabilities, weights) if weights else None


def weighted_log_probabilities(probabilities: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Return the weighted sum over members of their log-probabilities, (n, classes), float32."""
    logarithms = [np.log(np.maximum(rows.astype(np.float32), _SMALLEST_PROBABILITY)) for rows in probabilities]
    terms = (weight * rows for weight, rows in zip(weights, logarithms, strict=True))
    return reduce(np.add, terms).astype(np.float32)


FUSED = ModelType("fused", "Networks and measures, fused by trees.", "fused", FusedArchitecture, FusedModel)
