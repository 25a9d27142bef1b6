"""Several trained classifiers as one: the mean of their probabilities, or CBAM over their feature maps.

Both are of the Naturalize paper, section 3.5.4. An ensemble holds its members' weights, so that its run
folder stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wbctool.errors import InputError
from wbctool.modeling import attention, heads, kinds
from wbctool.modeling.classifier import Classifier, resized

KINDS = ("average", "cbam")
Member = TypeVar("Member", bound=kinds.Model)


@dataclass(frozen=True)
class EnsembleArchitecture:
    """What is needed to build an ensemble again.

    Attributes:
        ensemble: `average` or `cbam`.
        members: of each classifier; of an average, of fused models, too.
        classes: class names, those of all members.
        size: side of the input, the largest of the members', pixels.
        dense, norm, dropout: of the head over the feature maps of a `cbam` ensemble.
        symmetries: as in `Architecture`.
    """

    ensemble: str
    members: tuple[Any, ...]
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

    @property
    def measures(self) -> bool:
        """Whether a member asks for measures of the cell."""
        return any(member.measures for member in self.members)

    @property
    def needs_mask(self) -> bool:
        """Whether a member refuses images without a mask."""
        return any(member.needs_mask for member in self.members)

    @property
    def trees(self) -> bool:
        """Whether a member holds trees, which stand in files of their own."""
        return any(member.trees for member in self.members)

    def to_json(self) -> dict[str, Any]:
        """As `model.json` keeps it."""
        members = [member.to_json() for member in self.members]
        return {"backbone": self.backbone, **asdict(self), "members": members}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EnsembleArchitecture:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError: a part is missing or of another type.
        """
        parts = {name: value[name] for name in cls.__dataclass_fields__}
        parts["members"] = tuple(kinds.read(member) for member in value["members"])
        return cls(**{**parts, "classes": tuple(parts["classes"]), "dense": tuple(parts["dense"])})


class AverageEnsemble(kinds.Model):
    """The mean of the members' probabilities, as its logarithm, (n, classes)."""

    architecture: EnsembleArchitecture

    def __init__(self, architecture: EnsembleArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.members = nn.ModuleList(kinds.build(member) for member in architecture.members)

    def forward(self, images: Tensor, measures: np.ndarray | None = None) -> Tensor:
        """Of images, and of what their cells measure, (n, m), where a member asks for that."""
        logits = [
            member(given, measures) if member.architecture.measures else member(given)
            for member, given in _inputs(self._models, images)
        ]
        return _mean_of(logits)

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The members' vectors one after another, (n, sum of widths), and what `forward` gives."""
        pairs = _inputs(cast("list[Classifier]", self._models), images)  # trees have no vectors
        vectors, logits = zip(*[member.seen(given) for member, given in pairs], strict=True)
        return torch.cat([vector.float() for vector in vectors], 1), _mean_of(logits)

    def files(self) -> dict[str, bytes]:
        """What stands beside the weights, by name: the members' own files."""
        return {f"member-{n}-{name}": data for n, part in self._filed() for name, data in part.files().items()}

    def file_names(self) -> list[str]:
        """The names that `files` gives."""
        return [f"member-{number}-{name}" for number, part in self._filed() for name in part.file_names()]

    def load_files(self, read: Callable[[str], bytes]) -> None:
        """Take up what `files` gave; `read` gives the bytes of a name.

        Raises:
            ValueError: they do not fit.
        """
        for number, part in self._filed():
            part.load_files(_of_member(number, read))

    @property
    def _models(self) -> list[kinds.Model]:
        return cast("list[kinds.Model]", list(self.members))

    def _filed(self) -> list[tuple[int, kinds.Model]]:
        return [(number, part) for number, part in enumerate(self._models, 1) if part.architecture.trees]


class CbamEnsemble(kinds.Model):
    """The members' feature maps, one after another → CBAM → average pooling → a dense head.

    Maps are brought to the size of the largest; the members never learn.
    """

    architecture: EnsembleArchitecture
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
        members = cast("list[Classifier]", list(self.members))
        found = [member.features(given) for member, given in _inputs(members, images)]
        for member, maps in zip(members, found, strict=True):
            if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
                raise InputError(f"--ensemble cbam: {member.architecture.backbone} has no feature map; use average")
        side = max(maps.shape[2] for maps in found)
        return torch.cat([resized(maps, side) for maps in found], 1)

    def forward(self, given: Tensor, fixed: bool = False) -> Tensor:
        """Logits of images; or, where `fixed`, of what `fixed()` gave."""
        return self._of(given if fixed else self.fixed(given))[1]

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the head takes of a batch, (n, sum of channels), and the logits."""
        return self._of(self.fixed(images))

    def _of(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        vector = heads.pooled(self.attention(maps), "avg")
        return vector, self.head(vector)

    def unfreeze(self, _rule: str, keep_statistics: bool = False) -> None:
        """Let attention and head learn."""
        self.requires_grad_(True)
        self.members.requires_grad_(False)

    def train(self, mode: bool = True) -> CbamEnsemble:
        super().train(mode)
        self.members.eval()
        return self


Trainable = Classifier | CbamEnsemble  # in phases


def _inputs(members: Sequence[Member], images: Tensor) -> list[tuple[Member, Tensor]]:
    return [(member, resized(images, member.architecture.size)) for member in members]


def _of_member(number: int, read: Callable[[str], bytes]) -> Callable[[str], bytes]:
    return lambda name: read(f"member-{number}-{name}")


def _mean_of(logits: Sequence[Tensor]) -> Tensor:
    shares = [functional.softmax(own.double(), 1) for own in logits]
    return torch.stack(shares).mean(0).log()


def make_ensemble(architecture: EnsembleArchitecture) -> AverageEnsemble | CbamEnsemble:
    """The ensemble, untrained."""
    made: dict[str, type[AverageEnsemble | CbamEnsemble]] = {"average": AverageEnsemble, "cbam": CbamEnsemble}
    return made[architecture.ensemble](architecture)


kinds.register("ensemble", EnsembleArchitecture, make_ensemble)
