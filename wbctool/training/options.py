"""What can be chosen in training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from wbctool.errors import UsageProblem


@dataclass(frozen=True)
class TrainOptions:
    """Choices of one training; `epochs` is the total, of which `frozen_epochs` come first.

    Learning rates are the peak of a one-cycle schedule (Smith and Topin 2018) in each phase.
    """

    backbone: str = "efficientnet_b0"
    backbone_args: dict[str, Any] = field(default_factory=dict)
    weights: str = "imagenet"
    attention: str = "cbam"
    size: int = 224
    dropout: float = 0.2
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    loss: str = "ce"
    gamma: float = 2.0
    class_weights: str = "none"
    augment: str = "flips"
    epochs: int = 20
    frozen_epochs: int = 1
    patience: int = 10
    batch_size: int = 32
    frozen_lr: float = 3e-3
    lr: float = 1e-3
    weight_decay: float = 0.01
    precision: str = "auto"
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def parse_backbone_args(pairs: list[str]) -> dict[str, Any]:
    """`key=value` pairs with numbers, true, false and none read as such.

    Raises:
        UsageProblem: a pair without `=`.
    """
    import ast

    words = {"true": True, "false": False, "none": None}
    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageProblem(f"--backbone-arg {pair}: write it as key=value")
        try:
            parsed[key] = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            parsed[key] = text
    return parsed


def parse_triple(text: str | None, option: str) -> tuple[float, ...] | None:
    """`0.5` or `0.5,0.5,0.5` as three numbers.

    Raises:
        UsageProblem: neither one nor three numbers.
    """
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    low = 0.0 if option == "--mean" else 1e-6
    if len(numbers) not in (1, 3) or not all(low <= number <= 1 for number in numbers):
        raise UsageProblem(f"{option} {text}: give one number or three, in 0 to 1, such as 0.5 or 0.485,0.456,0.406")
    return numbers * 3 if len(numbers) == 1 else numbers
