"""What models are made of, as `model.json` keeps it."""

from __future__ import annotations

from dataclasses import asdict, field, fields
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Attention = Literal["none", "cbam"]
AttentionAt = Literal["head", "stages", "blocks"]
Pool = Literal["backbone", "avg", "max", "avgmax"]
Norm = Literal["none", "batch", "layer"]
SideHeadKind = Literal["none", "covariance"]
Symmetries = Literal[1, 8]
EnsembleMethod = Literal["average", "cbam"]
MAX_WIDTH = 1 << 16
CUSTOM_CNN = "custom-cnn"  # the one backbone that is not timm's
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
RGB = tuple[float, float, float]
Std = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
A = TypeVar("A", bound="JsonArchitecture")


class JsonArchitecture:
    """A dataclass that goes to `model.json` and comes back."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return what `model.json` keeps."""
        return asdict(self)

    @classmethod
    def from_json(cls: type[A], value: dict[str, Any]) -> A:
        """Read what `to_json` returned, now or in a version with fewer fields; ValueError where a field is invalid."""
        return cls(**{own.name: value[own.name] for own in fields(cls) if own.name in value})


@dataclass(frozen=True, config=STRICT)
class Architecture(JsonArchitecture):
    """What is needed to build a classifier again."""

    backbone: str  # a timm model name, or `custom-cnn`
    classes: tuple[str, ...]  # names, in the order of the outputs
    size: Annotated[int, Field(ge=1, le=10_000)] = 224  # side of the input images, pixels
    attention: Attention = "none"  # for a convolutional backbone
    attention_at: AttentionAt = "head"  # after the backbone; `stages`, after each stage; `blocks`, after each block
    pool: Pool = "backbone"  # of the feature map: as the backbone does, average, maximum, or the mean of both
    norm: Norm = "none"  # of the pooled vector
    dense: tuple[Width, ...] = ()  # widths of hidden layers between the vector and the last layer
    dropout: Dropout = 0.0  # rate before each of these layers
    side_heads: SideHeadKind = "none"  # further heads on the backbone's maps half-way
    symmetries: Symmetries = 1  # of the square, over which probabilities are averaged
    neighbours: tuple[Count, Count] | None = None  # voting, stored vectors of a k-NN head; None for a linear one
    backbone_args: dict[str, Any] = field(default_factory=dict)  # keyword arguments for timm, such as `pad_type`
    mean: RGB = (0.485, 0.456, 0.406)  # of the normalisation, on a scale of 0 to 1
    std: tuple[Std, Std, Std] = (0.229, 0.224, 0.225)  # likewise

    measures: ClassVar[bool] = False  # it looks at images only, not at what their cells measure
    needs_mask: ClassVar[bool] = False
    trees: ClassVar[bool] = False
