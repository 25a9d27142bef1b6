"""One run that is explained: its maps of a batch, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch

from wbctool.device import pick_precision
from wbctool.errors import UsageProblem
from wbctool.explaining import faithfulness, scores
from wbctool.explaining.explainer import Explainer, fill_colour
from wbctool.explaining.options import LABEL, PREDICTED, MapOptions
from wbctool.modeling.predictor import probabilities
from wbctool.modeling.run_folder import Run, refuse_trees, trained_precision
from wbctool.statistics.calibration import scaled

Regions = Mapping[str, np.ndarray]


@dataclass
class Finding:
    """What a run says of one image, and where it looked.

    Attributes:
        shares: calibrated probabilities, (classes,).
        chosen: number of the class explained.
        maps: by method, (size, size), 0 to 1.
        figures: by method, the scores as a record has them.
        agreement: of each two methods.
    """

    shares: np.ndarray
    chosen: int
    maps: dict[str, np.ndarray]
    figures: dict[str, dict[str, Any]]
    agreement: dict[str, float | None]


class Subject:
    """A run and how it is explained.

    Args:
        run: the run.
        how: what is asked for.
        device: where the run's model is.
        precision: `float32`, `bf16`, or `auto`: as it was trained.

    Raises:
        UsageProblem: the run cannot be explained so, or has no such class; the near ones are named.
    """

    def __init__(self, run: Run, how: MapOptions, device: torch.device, precision: str) -> None:
        self.run, self.how, self.device = run, how, device
        self.size = run.model.architecture.size
        self.name = str(run.path)
        refuse_trees(run, "which have no maps")
        if precision == "auto":
            precision = trained_precision(run.info)
        try:
            self.explainer = Explainer(
                run.model, how.methods, how.layers, how.views, pick_precision(precision, device), how.channels
            )
        except UsageProblem as error:
            raise UsageProblem(f"{self.name}: {error}") from None
        if how.of_class not in (PREDICTED, LABEL):
            self._check_class(how.of_class)

    def _check_class(self, name: str) -> None:
        if name in self.run.classes:
            return
        same = [own for own in self.run.classes if own.casefold() == name.casefold()]
        near = same or get_close_matches(name, self.run.classes, n=3, cutoff=0.5)
        some = f"near it: {', '.join(near)}" if near else f"its classes: {', '.join(self.run.classes[:12])}"
        raise UsageProblem(f"{self.name}: knows no class {name}; {some}")

    def find(self, images: np.ndarray, classes: np.ndarray, regions: Sequence[Regions | None]) -> list[Finding]:
        """Explain a batch.

        Args:
            images: (n, size, size, 3), uint8.
            classes: to explain, as `Explainer` takes them, (n,).
            regions: of each image, or None.
        """
        stack = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device)
        explained = self.explainer(stack, classes)
        shares = scaled(explained.probabilities, self.run.temperature or 1.0)
        figures: list[dict[str, dict[str, Any]]] = [{} for _ in images]
        for method, maps in explained.maps.items():
            others = np.roll(maps, -1, axis=0) if len(maps) > 1 else [None]
            for own, map_, other, where in zip(figures, maps, others, regions, strict=True):
                own[method] = _located(map_, other, where)
            if method == "attention" and explained.gates is not None:
                for own, ends in zip(figures, explained.gates, strict=True):
                    own[method] |= {"gate": [rounded(end) for end in ends], "layers": list(self.explainer.gates)}
            if self.how.faithfulness:
                self._follow(method, stack, maps, explained.classes, figures)
        found = []
        for row, chosen in enumerate(explained.classes):
            maps_of = {method: maps[row] for method, maps in explained.maps.items()}
            alike = {
                f"{one} {other}": rounded(scores.agreement(maps_of[one], maps_of[other]))
                for one, other in combinations(maps_of, 2)
            }
            found.append(Finding(shares[row], int(chosen), maps_of, figures[row], alike))
        return found

    def _follow(
        self, method: str, images: torch.Tensor, maps: np.ndarray, classes: np.ndarray, figures: list[dict[str, Any]]
    ) -> None:
        answer = partial(probabilities, self.run.model, precision=self.explainer.precision, views=1)
        found = faithfulness.curves(answer, images, fill_colour(self.run.model), maps, classes)
        for name, curves in found.items():
            for own, map_, value in zip(figures, maps, faithfulness.area(curves), strict=True):
                own[method][name] = rounded(value) if map_.any() else None


def _located(map_: np.ndarray, other: np.ndarray | None, regions: Regions | None) -> dict[str, Any]:
    """Where a map's energy and peak lie, and where those of another image's map would: a cell is in the middle of
    its crop, and so is much that looks at nothing."""
    found: dict[str, Any] = {} if map_.any() else {"blank": True}
    if regions is not None:
        found["energy"] = _rounded(scores.energy(map_, regions))
        found["pointing"] = scores.pointing(map_, regions)
        if other is not None:
            found["swapped"] = _rounded(scores.energy(other, regions))
    return found


def _rounded(shares: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: rounded(value) for name, value in shares.items()}


def rounded(value: float | None) -> float | None:
    """A figure as a record has it: six digits."""
    return None if value is None else float(f"{value:.6g}")
