"""What a classifier is made of, as `model.json` keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from math import inf, isfinite
from typing import Any, ClassVar

from wbctool.errors import UsageProblem

ATTENTIONS = ("none", "cbam")
_WIDEST = 1 << 16
PLACES = ("head", "stages", "blocks")


@dataclass(frozen=True)
class Architecture:
    """What is needed to build a classifier again.

    Attributes:
        backbone: a timm model name, or `custom-cnn`.
        classes: class names, in the order of the outputs.
        size: side of the input images, pixels.
        attention: `none` or `cbam`.
        attention_at: `head`, after the backbone; `stages`, after each stage; `blocks`, after each block.
        pool: how the feature map becomes a vector: as the backbone does, average, maximum, or both.
        norm: normalisation of that vector: `none`, `batch` or `layer`.
        dense: widths of hidden layers between it and the last layer.
        dropout: rate before each of these layers.
        side_heads: `none`, or `covariance`, further heads on the backbone's maps half-way.
        symmetries: of the square, over which probabilities are averaged: 1, or all 8.
        neighbours: (count, stored) of a nearest-neighbour head; None for a linear one.
        backbone_args: keyword arguments for timm, such as `pad_type`.
        mean: of the normalisation, per RGB channel, on a scale of 0 to 1.
        std: likewise.
    """

    backbone: str
    classes: tuple[str, ...]
    size: int = 224
    attention: str = "none"
    attention_at: str = "head"
    pool: str = "backbone"
    norm: str = "none"
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    side_heads: str = "none"
    symmetries: int = 1
    neighbours: tuple[int, int] | None = None
    backbone_args: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    measures: ClassVar[bool] = False  # of its cells: it looks at no more than images
    needs_mask: ClassVar[bool] = False
    trees: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for value, names, option in (
            (self.attention, ATTENTIONS, "--attention"),
            (self.attention_at, PLACES, "--attention-at"),
        ):
            if value not in names:
                raise UsageProblem(f"{option} {value}: choose from {', '.join(names)}")
        for key, right in (
            ("backbone", isinstance(self.backbone, str)),
            ("size", type(self.size) is int and 1 <= self.size <= 10_000),
            ("dense", all(type(width) is int and 1 <= width <= _WIDEST for width in self.dense)),
            ("dropout", 0 <= self.dropout < 1),
            ("symmetries", type(self.symmetries) is int and self.symmetries in (1, 8)),
            ("neighbours", not self.neighbours or min(self.neighbours) >= 0),
            ("mean", len(self.mean) == 3 and all(map(isfinite, self.mean))),
            ("std", len(self.std) == 3 and all(0 < each < inf for each in self.std)),
        ):
            if not right:
                raise UsageProblem(f"--{key} {getattr(self, key)}: out of its range")

    def to_json(self) -> dict[str, Any]:
        """As `model.json` keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Architecture:
        """Read what `to_json` wrote, now or when there were fewer choices.

        Raises:
            KeyError, TypeError: a part is missing or of another type.
        """
        parts: dict[str, Any] = {own.name: value[own.name] for own in fields(cls) if own.name in value}
        for name in ("backbone", "classes"):
            parts[name] = value[name]
        for name in ("classes", "dense", "neighbours", "mean", "std"):
            if parts.get(name) is not None:
                parts[name] = tuple(parts[name])
        return cls(**parts)
