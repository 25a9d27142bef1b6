"""Several trained classifiers as one: the mean of their probabilities, or CBAM over their feature maps.

Both are of the Naturalize paper, section 3.5.4. An ensemble holds its members' weights, so that its run
folder stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wbctool.errors import InputError
from wbctool.modeling import attention, heads
from wbctool.modeling.architecture import Architecture
from wbctool.modeling.classifier import Classifier

KINDS = ("average", "cbam")


@dataclass(frozen=True)
class EnsembleArchitecture:
    """What is needed to build an ensemble again.

    Attributes:
        ensemble: `average` or `cbam`.
        members: of each classifier.
        classes: class names, those of all members.
        size: side of the input, the largest of the members', pixels.
        dense, norm, dropout: of the head over the feature maps of a `cbam` ensemble.
        symmetries: as in `Architecture`.
    """

    ensemble: str
    members: tuple[Architecture, ...]
    classes: tuple[str, ...]
    size: int
    dense: tuple[int, ...] = ()
    norm: str = "none"
    dropout: float = 0.0
    symmetries: int = 1

    @property
    def backbone(self) -> str:
        """The members' backbones."""
        return "+".join(member.backbone for member in self.members)

    def to_json(self) -> dict[str, Any]:
        """As `model.json` keeps it."""
        return {"backbone": self.backbone, **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EnsembleArchitecture:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError: a part is missing or of another type.
        """
        parts = {name: value[name] for name in cls.__dataclass_fields__}
        parts["members"] = tuple(Architecture.from_json(member) for member in value["members"])
        return cls(**{**parts, "classes": tuple(parts["classes"]), "dense": tuple(parts["dense"])})


class AverageEnsemble(nn.Module):
    """The mean of the members' probabilities, as its logarithm, (n, classes)."""

    def __init__(self, architecture: EnsembleArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.members = nn.ModuleList(Classifier(member) for member in architecture.members)

    def forward(self, images: Tensor) -> Tensor:
        shares = [functional.softmax(member(given).double(), 1) for member, given in _inputs(self.members, images)]
        return torch.stack(shares).mean(0).log()


class CbamEnsemble(nn.Module):
    """The members' feature maps, one after another → CBAM → average pooling → a dense head.

    Maps are brought to the size of the largest; the members never learn.
    """

    has_fixed_part = True

    def __init__(self, architecture: EnsembleArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.members = nn.ModuleList(Classifier(member) for member in architecture.members)
        self.eval()
        with torch.no_grad():
            maps = self.fixed(torch.zeros(1, 3, architecture.size, architecture.size))
        channels = maps.shape[1]
        self.attention = attention.cbam(channels)
        head = (architecture.norm, architecture.dense, architecture.dropout, len(architecture.classes))
        self.head = heads.dense_head(channels, *head)
        self.train()

    def fixed(self, images: Tensor) -> Tensor:
        """The members' attended feature maps, (n, sum of channels, side, side).

        Raises:
            InputError: a member has none.
        """
        found = [member.features(given) for member, given in _inputs(self.members, images)]
        for member, maps in zip(self.members, found, strict=True):
            if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
                raise InputError(f"--ensemble cbam: {member.architecture.backbone} has no feature map; use average")
        side = max(maps.shape[2] for maps in found)
        return torch.cat([_resized(maps, side) for maps in found], 1)

    def forward(self, given: Tensor, fixed: bool = False) -> Tensor:
        """Logits of images; or, where `fixed`, of what `fixed()` gave."""
        maps = given if fixed else self.fixed(given)
        return self.head(heads.pooled(self.attention(maps), "avg"))

    def unfreeze(self, _rule: str, keep_statistics: bool = False) -> None:
        """Let attention and head learn."""
        self.requires_grad_(True)
        self.members.requires_grad_(False)

    def train(self, mode: bool = True) -> CbamEnsemble:
        super().train(mode)
        self.members.eval()
        return self


def _inputs(members: Sequence[nn.Module], images: Tensor) -> list[tuple[nn.Module, Tensor]]:
    return [(member, _resized(images, member.architecture.size)) for member in members]


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)


def make_ensemble(architecture: EnsembleArchitecture) -> nn.Module:
    """The ensemble, untrained."""
    return {"average": AverageEnsemble, "cbam": CbamEnsemble}[architecture.ensemble](architecture)
