"""Which composites are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from wbctool.errors import InputError, UsageProblem
from wbctool.pipeline.parameters import Parameters, parameter

# The sets of the Naturalize paper: composites added to the pruned PBC images of each class.
_SCARCE = ("BNE", "MMY", "MY", "PMY", "SNE")
SETS: dict[str, dict[str, int]] = {
    "419-pmy": {"PMY": 592},
    "1k": {**dict.fromkeys(_SCARCE, 1000), "PMY": 1592},
    "2k": {**dict.fromkeys(_SCARCE, 2000), "PMY": 2592},
}
# The paper does not give the size of its balanced set; it tests 200 images of each class, a fifth of 1,000.
BALANCED_TO = 1000


class CompositeOptions(Parameters):
    """Which composites are made; one of `add`, `balance_to` and `set_name` says how many."""

    add: int | None = parameter(None, "So many of each class; 0: only the pool.", low=0, form="N")
    balance_to: int | None = parameter(None, "What each class lacks from N training images.", low=1, form="N")
    set_name: Literal["419-pmy", "1k", "2k", "1k-class"] | None = parameter(
        None, "As the paper's sets.", form="419-pmy|1k|2k|1k-class", flags=("--set",)
    )
    classes: str | None = parameter(None, "Make composites of these classes only.", form="A,B")
    algorithm: Literal["natural", "paper"] = parameter(
        "natural", "Real fields with another cell; or Algorithm 1 as published."
    )
    rbc: int | None = parameter(None, "Red cells. (as the real field has; paper 8)", low=0, form="N")
    seed: int = parameter(0, "Random seed.", low=0, panel="Running")

    @model_validator(mode="after")
    def _check(self) -> CompositeOptions:
        if sum(number is not None for number in (self.add, self.balance_to, self.set_name)) != 1:
            raise UsageProblem("say how many composites to make: --add N, --balance-to N or --set NAME, one of them")
        fixed = SETS.get(self.set_name or "")
        if fixed and set(self.class_names) - set(fixed):
            raise UsageProblem(f"--classes {self.classes}: --set {self.set_name} has {', '.join(fixed)} only")
        return self

    @property
    def class_names(self) -> list[str]:
        """The classes that composites are made of; none for all."""
        return [name.strip() for name in (self.classes or "").split(",") if name.strip()]

    def amounts(self, real: Mapping[str, int]) -> dict[str, int]:
        """Return the number of composites of each class that any are made of, by the numbers of its training images."""
        if self.add != 0 and not real:
            raise InputError("no training image has a label; give --label-regex or --labels")
        if self.set_name in SETS:
            fixed = SETS[self.set_name]
            wanted = {name: count for name, count in fixed.items() if not self.class_names or name in self.class_names}
        elif self.add is not None:
            wanted = dict.fromkeys(self.class_names or sorted(real), self.add)
        else:
            aim = self.balance_to or BALANCED_TO
            wanted = {name: max(0, aim - real.get(name, 0)) for name in self.class_names or sorted(real)}
        for name in wanted:
            if name not in real:
                known = ", ".join(sorted(real)) or "none; give --label-regex or --labels"
                raise InputError(f"class {name}: has no training image (classes here: {known})")
        return {name: count for name, count in wanted.items() if count}
