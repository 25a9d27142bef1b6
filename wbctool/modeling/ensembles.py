"""Several trained classifiers as one: the mean of their probabilities, or CBAM over their feature maps.

Both are from the Naturalize paper, section 3.5.4. An ensemble holds its members' weights, so that its run folder needs
no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypeVar, cast

import numpy as np
import torch
from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from wbctool.errors import InputError
from wbctool.modeling import attention, heads
from wbctool.modeling.architecture import STRICT, Dropout, EnsembleMethod, JsonArchitecture, Norm, Symmetries, Width
from wbctool.modeling.classifier import Classifier, resized
from wbctool.modeling.model_types import Model, ModelType, build, read_architecture

AnyModel = TypeVar("AnyModel", bound=Model)


# a member's architecture may also be an object of `model.json`
_from_json = BeforeValidator(lambda value: read_architecture(value) if isinstance(value, dict) else value)
Members = tuple[Annotated[Any, _from_json], ...]


@dataclass(frozen=True, config=STRICT)
class EnsembleArchitecture(JsonArchitecture):
    """What is needed to build an ensemble again."""

    ensemble: EnsembleMethod
    members: Members  # architectures of classifiers; in an average ensemble, of fused models, too
    classes: tuple[str, ...]  # those of all members
    size: int  # side of the input, the largest of the members', pixels
    dense: tuple[Width, ...] = ()  # this, `norm` and `dropout`: of the head over the maps of a `cbam` ensemble
    norm: Norm = "none"
    dropout: Dropout = 0.0
    symmetries: Symmetries = 1

    @property
    def backbone(self) -> str:
        """The members' backbones."""
        return "+".join(member.backbone for member in self.members)

    @property
    def measures(self) -> bool:
        """Whether a member takes measures of the cell."""
        return any(member.measures for member in self.members)

    @property
    def needs_mask(self) -> bool:
        """Whether a member refuses images without a mask."""
        return any(member.needs_mask for member in self.members)

    @property
    def trees(self) -> bool:
        """Whether a member holds trees, which are kept in files of their own."""
        return any(member.trees for member in self.members)

    def to_json(self) -> dict[str, Any]:
        """Return what `model.json` keeps."""
        members = [member.to_json() for member in self.members]
        return {"backbone": self.backbone, **asdict(self), "members": members}


class AverageEnsemble(Model):
    """The log of the mean of the members' probabilities, (n, classes)."""

    architecture: EnsembleArchitecture

    def __init__(self, architecture: EnsembleArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.members = nn.ModuleList(build(member) for member in architecture.members)

    def forward(self, images: Tensor, measures: np.ndarray | None = None) -> Tensor:
        """Return log-probabilities; `measures` are those of the cells, (n, m), where a member takes them."""
        logits = [
            member(inputs, measures) if member.architecture.measures else member(inputs)
            for member, inputs in _inputs(self._models, images)
        ]
        return _log_mean(logits)

    def forward_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the members' features side by side, (n, sum of widths), and what `forward` returns."""
        pairs = [member.forward_features(inputs) for member, inputs in _inputs(self._models, images)]
        features, logits = zip(*pairs, strict=True)
        return torch.cat([vector.float() for vector in features], 1), _log_mean(logits)

    def files(self) -> dict[str, bytes]:
        """Return the contents of the members' files, by name."""
        return {f"{prefix}{name}": data for prefix, member in self._prefixed() for name, data in member.files().items()}

    def load_files(self, read: Callable[[str], bytes]) -> None:
        """Load what `files` returned; `read` returns the bytes of a name."""
        for prefix, member in self._prefixed():
            member.load_files(lambda name, prefix=prefix: read(f"{prefix}{name}"))  # type: ignore[misc]

    @property
    def _models(self) -> list[Model]:
        return cast("list[Model]", list(self.members))

    def _prefixed(self) -> list[tuple[str, Model]]:
        """The members that have files, and what the names of these begin with."""
        return [(f"member-{n}-", member) for n, member in enumerate(self._models, 1) if member.architecture.trees]


class CbamEnsemble(Model):
    """The members' feature maps side by side → CBAM → average pooling → a dense head.

    Maps are resized to the largest; the members never learn.
    """

    architecture: EnsembleArchitecture
    has_frozen_features = True

    def __init__(self, architecture: EnsembleArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.members = nn.ModuleList(Classifier(member) for member in architecture.members)
        self.eval()
        with torch.no_grad():
            maps = self.frozen_features(torch.zeros(1, 3, architecture.size, architecture.size))
        channels = maps.shape[1]
        self.attention = attention.cbam(channels)
        head = (architecture.norm, architecture.dense, architecture.dropout, len(architecture.classes))
        self.head = heads.dense_head(channels, *head)
        self.train()

    def frozen_features(self, images: Tensor) -> Tensor:
        """Return the members' attended feature maps, (n, sum of channels, side, side)."""
        members = cast("list[Classifier]", list(self.members))
        all_maps = [member.features(inputs) for member, inputs in _inputs(members, images)]
        for member, maps in zip(members, all_maps, strict=True):
            if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
                raise InputError(f"--ensemble cbam: {member.architecture.backbone} has no feature map; use average")
        side = max(maps.shape[2] for maps in all_maps)
        return torch.cat([resized(maps, side) for maps in all_maps], 1)

    def forward(self, inputs: Tensor, frozen: bool = False) -> Tensor:
        """Return logits of images; or, where `frozen`, of what `frozen_features` returned for them."""
        return self._pool_and_classify(inputs if frozen else self.frozen_features(inputs))[1]

    def forward_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the head takes of a batch, (n, sum of channels), and the logits."""
        return self._pool_and_classify(self.frozen_features(images))

    def _pool_and_classify(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        vector = heads.pooled(self.attention(maps), "avg")
        return vector, self.head(vector)

    def unfreeze(self, _rule: str, keep_statistics: bool = False) -> None:
        """Let attention and head learn; the members have no rule."""
        self.requires_grad_(True)
        self.members.requires_grad_(False)

    def train(self, mode: bool = True) -> CbamEnsemble:
        super().train(mode)
        self.members.eval()
        return self


Trainable = Classifier | CbamEnsemble  # in phases, by gradients


def _inputs(members: Sequence[AnyModel], images: Tensor) -> list[tuple[AnyModel, Tensor]]:
    """Each member with the images at its size."""
    return [(member, resized(images, member.architecture.size)) for member in members]


def _log_mean(logits: Sequence[Tensor]) -> Tensor:
    return torch.stack([functional.softmax(member.double(), 1) for member in logits]).mean(0).log()


def make_ensemble(architecture: EnsembleArchitecture) -> AverageEnsemble | CbamEnsemble:
    """Return the untrained ensemble."""
    return AverageEnsemble(architecture) if architecture.ensemble == "average" else CbamEnsemble(architecture)


ENSEMBLE = ModelType(
    "ensemble",
    "Several classifiers, averaged or with CBAM over their maps.",
    "ensemble",
    EnsembleArchitecture,
    make_ensemble,
)
