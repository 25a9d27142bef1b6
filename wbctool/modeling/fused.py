"""Networks and measures of the cell, fused by gradient-boosted trees.

XGBoost (Chen and Guestrin 2016) takes what the networks see, what they say, and what the cell measures. It may
start from the networks' own answer, which the trees then mend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from torch import nn

from wbctool.errors import InputError
from wbctool.modeling import kinds
from wbctool.modeling.classifier import resized
from wbctool.modeling.deep_features import deep_features, rounded

if TYPE_CHECKING:
    from xgboost import Booster  # takes a second: only fused runs need it

DEEP, PROBABILITIES, MORPHOLOGY = "deep", "probabilities", "morphology"
PARTS = (DEEP, PROBABILITIES, MORPHOLOGY)
BOOSTER = "model.ubj"
_LEAST = 1e-7  # probability


@dataclass(frozen=True)
class FusedArchitecture:
    """What is needed to build a fused model again.

    Attributes:
        fused: what fuses: `xgboost`.
        members: architectures of the networks; may be none.
        names: of their run folders, each once.
        widths: of their features.
        parts: of `PARTS`, those that the trees see.
        start: of each member, by how much its log-probabilities count in the answer that trees start from; empty
            where they start from nothing.
        classes: class names, in the order of the outputs.
        size: side of the input, the largest of the members', pixels.
        unmeasured: whether it learnt from cells without a mask, too; one that did not refuses these.
        symmetries: 1: members take the mean over their own views.
    """

    fused: str
    members: tuple[Any, ...]
    names: tuple[str, ...]
    widths: tuple[int, ...]
    parts: tuple[str, ...]
    start: tuple[float, ...]
    classes: tuple[str, ...]
    size: int
    unmeasured: bool = False
    symmetries: int = 1
    trees: ClassVar[bool] = True

    @property
    def backbone(self) -> str:
        """The members' backbones."""
        return "+".join([*(member.backbone for member in self.members), "xgboost"])

    @property
    def measures(self) -> bool:
        """Whether it asks for measures of the cell."""
        return MORPHOLOGY in self.parts

    @property
    def needs_mask(self) -> bool:
        """Whether it refuses images without a mask."""
        return self.measures and not self.unmeasured

    def features(self) -> list[tuple[str, str]]:
        """Name and family of each feature, in their order."""
        found = []
        for name, width, member in zip(self.names, self.widths, self.members, strict=True):
            if DEEP in self.parts:
                found += [(f"{name}.deep.{number:04}", f"{name}: deep") for number in range(width)]
            if PROBABILITIES in self.parts:
                found += [
                    (f"{name}.probability.{number}.{_plain(own)}", f"{name}: probabilities")
                    for number, own in enumerate(member.classes)
                ]
        if self.measures:
            from wbctool.measuring import morphology  # which takes half a second

            found += [(name, morphology.family_of(name)) for name in morphology.names()]
        return found

    @property
    def deep_features(self) -> int:
        """How many features, the first, are of networks; these are finite."""
        widths = (width for width in self.widths if DEEP in self.parts)
        said = (len(member.classes) for member in self.members if PROBABILITIES in self.parts)
        return sum(widths) + sum(said)

    def to_json(self) -> dict[str, Any]:
        """As `model.json` keeps it."""
        return {**asdict(self), "backbone": self.backbone, "features": [name for name, _ in self.features()]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FusedArchitecture:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or of another type, or this version of wbctool
                measures otherwise.
        """
        listed = ("names", "widths", "parts", "start", "classes")
        own = [one.name for one in fields(cls)]
        parts: dict[str, Any] = {name: tuple(value[name]) if name in listed else value[name] for name in own}
        parts["members"] = tuple(kinds.read(member) for member in value["members"])
        architecture = cls(**parts)
        check_names(value["features"], [name for name, _ in architecture.features()])
        return architecture


def _plain(name: str) -> str:
    """Without what XGBoost does not take in a name."""
    return "".join("_" if letter in "[]<" or letter.isspace() else letter for letter in name)


def run_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """A name for each run, by its folder, each once."""
    found: list[str] = []
    for path in paths:
        name = plain = _plain(path.resolve().name) or "run"
        number = 1
        while name in found:
            number += 1
            name = f"{plain}-{number}"
        found.append(name)
    return tuple(found)


def check_names(given: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse features that are others, or in another order.

    Raises:
        ValueError: naming the first that differs.
    """
    for place, (one, other) in enumerate(zip(given, wanted, strict=False)):
        if one != other:
            raise ValueError(f"feature {place} is {one}, not {other}")
    if len(given) != len(wanted):
        raise ValueError(f"{len(given):,} features, not {len(wanted):,}")


class FusedModel(kinds.Model):
    """Log-probabilities (n, classes) of images and of what their cells measure.

    Input is a batch (n, 3, size, size), and, where `architecture.measures`, measures (n, m) with NaN for what is
    missing.
    """

    architecture: FusedArchitecture
    booster: Booster  # set with its trees, or by `load_files`

    def __init__(self, architecture: FusedArchitecture, members: Sequence[kinds.Model] | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        made = [kinds.build(member) for member in architecture.members] if members is None else members
        self.members = nn.ModuleList(made)
        self._device = ""  # of the booster

    def forward(self, images: torch.Tensor, measures: np.ndarray | None = None) -> torch.Tensor:
        precision = "bf16" if torch.is_autocast_enabled(images.device.type) else "float32"
        members = cast("list[kinds.Network]", list(self.members))
        seen = [deep_features(member, resized(images, member.architecture.size), precision) for member in members]
        rows = columns(self.architecture.parts, seen, measures)
        margins = self.boosted(rows, starts([shares for _, shares in seen], self.architecture.start))
        return torch.log_softmax(torch.from_numpy(margins).double(), 1).to(images.device)

    def boosted(self, rows: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        """What the trees make of features: margins (n, classes), float32; NaN where a deep feature is not finite."""
        import xgboost

        device = next((part.device for part in self.parameters()), torch.device("cpu"))
        if self._device != str(device):  # also within an ensemble, whose own move does not call this model's
            self._device = str(device)
            self.booster.set_param({"device": self._device})
        names = [name for name, _ in self.architecture.features()]
        deep = self.architecture.deep_features
        wrong = ~np.isfinite(rows[:, :deep]).all(1)
        rows = np.where(wrong[:, None], np.nan, rows)
        start = None if start is None else np.where(wrong[:, None], np.float32(0), start)
        given = xgboost.DMatrix(rows, feature_names=names, base_margin=start, missing=np.nan)
        margins = self.booster.predict(given, output_margin=True).reshape(len(rows), -1)
        margins[wrong] = np.nan
        return margins

    def files(self) -> dict[str, bytes]:
        """What stands beside the weights, by name."""
        return {BOOSTER: bytes(self.booster.save_raw("ubj"))}

    def file_names(self) -> list[str]:
        """The names that `files` gives."""
        return [BOOSTER]

    def load_files(self, read: Callable[[str], bytes]) -> None:
        """Take up what `files` gave; `read` gives the bytes of a name.

        Raises:
            ValueError: they do not fit.
        """
        from xgboost import Booster

        self.booster, self._device = Booster(model_file=bytearray(read(BOOSTER))), ""
        check_names(self.booster.feature_names or [], [name for name, _ in self.architecture.features()])


def columns(
    parts: Sequence[str], seen: Sequence[tuple[np.ndarray, np.ndarray]], measures: np.ndarray | None
) -> np.ndarray:
    """The features of images side by side, (n, features), float32, in the order of `FusedArchitecture.features`.

    Args:
        parts: of `PARTS`.
        seen: of each member, features (n, width) and probabilities (n, classes).
        measures: (n, m), where `parts` has morphology.
    """
    blocks = []
    for vectors, shares in seen:
        blocks += [vectors] if DEEP in parts else []
        blocks += [rounded(shares.astype(np.float32))] if PROBABILITIES in parts else []
    if MORPHOLOGY in parts:
        if measures is None:
            raise InputError("this run measures cells; give records with masks, as `wbctool crop` makes them")
        blocks.append(rounded(measures))
    return np.concatenate(blocks, axis=1, dtype=np.float32)


def starts(shares: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray | None:
    """The margins that trees start from, (n, classes), float32: a weighted sum of log-probabilities.

    Args:
        shares: of each member, (n, classes).
        weights: of each member; none for no start.
    """
    return weighted(shares, weights) if weights else None


def weighted(shares: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """A weighted sum of log-probabilities, (n, classes), float32: as `starts`, of one member or more."""
    logarithms = [np.log(np.maximum(own.astype(np.float32), _LEAST)) for own in shares]
    each = (weight * own for weight, own in zip(weights, logarithms, strict=True))
    return reduce(np.add, each).astype(np.float32)


kinds.register("fused", FusedArchitecture, FusedModel)
