"""Focal loss: samples that are classified well count less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, cast

from pydantic import BeforeValidator

from wbctool.errors import UsageProblem
from wbctool.pipeline.parameters import Parameters, parameter
from wbctool.training.losses import LossMethod, Objective

if TYPE_CHECKING:
    from torch import Tensor


class FocalParameters(Parameters):
    """Parameters of the focal loss."""

    gamma: float = parameter(2.0, "Focusing exponent.", low=0, high=100)
    alpha: Annotated[str, BeforeValidator(str)] = parameter("", "Factor of each class.", form="X|A=X,B=X")


def focal(logits: Tensor, targets: Tensor, objective: Objective, _epoch: int) -> Tensor:
    """Return −α (1 − p)^γ log p of the true class of each sample (Lin et al. 2017, eq. 5), shape (n,).

    With γ 0 and no α it is cross-entropy. Smoothed labels sum it over all classes, weighted by the label.
    """
    from torch.nn import functional

    parameters = cast(FocalParameters, objective.parameters)
    log_p = functional.log_softmax(logits, dim=1)
    terms = -((1 - log_p.exp()).clamp(min=0) ** parameters.gamma) * log_p
    if (alpha := alpha_of(parameters.alpha, objective.class_names)) is not None:
        terms = terms * logits.new_tensor(alpha)
    if (weights := objective.weights_like(logits)) is not None:
        terms = terms * weights
    losses, smoothing = terms.gather(1, targets[:, None])[:, 0], objective.label_smoothing
    return (1 - smoothing) * losses + smoothing * terms.mean(1) if smoothing else losses


def alpha_of(text: str, class_names: Sequence[str]) -> list[float] | None:
    """Return the factor of each class: `0.25` is that of all, `A=0.5,B=2` those of some, the others having 1."""
    if not text:
        return None
    factors = dict.fromkeys(class_names, 1.0)
    try:
        for item in text.split(","):
            name, equals, value = item.rpartition("=")
            if equals and name not in factors:
                raise UsageProblem(f"--alpha {text}: there is no class {name}; there are {', '.join(class_names)}")
            if not equals and "," in text:
                raise ValueError
            factors.update({name: float(value)} if equals else dict.fromkeys(class_names, float(value)))
    except ValueError:
        raise UsageProblem(f"--alpha {text}: give one number, or some as CLASS=NUMBER,CLASS=NUMBER") from None
    if not all(0 < factor < float("inf") for factor in factors.values()):
        raise UsageProblem(f"--alpha {text}: give positive numbers")
    return list(factors.values())


FOCAL = LossMethod("focal", "Focal loss.", "Lin et al. 2017", FocalParameters, focal)
