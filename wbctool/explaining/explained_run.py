"""One run that is explained: its maps of a batch of images, and their scores."""

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

Scores = dict[str, dict[str, Any]]


@dataclass
class Explanation:
    """What a run predicts for one image, and where it looks."""

    probabilities: np.ndarray  # calibrated, (classes,)
    class_number: int  # the explained class
    maps: dict[str, np.ndarray]  # by method, (size, size), 0 to 1
    scores: Scores  # by method, as a record has them
    agreement: dict[str, float | None]  # by pair of methods, the correlation of their maps


class ExplainedRun:
    """A run with the explainer of its model, in `float32`, `bf16`, or with `auto` in the precision of the training."""

    def __init__(self, run: Run, options: MapOptions, device: torch.device, precision: str) -> None:
        self.run, self.options, self.device = run, options, device
        self.size = run.model.architecture.size
        self.name = str(run.path)
        refuse_trees(run, "which have no maps")
        precision = pick_precision(trained_precision(run.info) if precision == "auto" else precision, device)
        try:
            self.explainer = Explainer(
                run.model, options.methods, options.layers, options.views, precision, options.parameters
            )
        except UsageProblem as error:
            raise UsageProblem(f"{self.name}: {error}") from None
        name, classes = options.of_class, run.classes
        if name not in (PREDICTED, LABEL, *classes):
            same = [known for known in classes if known.casefold() == name.casefold()]
            similar = same or get_close_matches(name, classes, n=3, cutoff=0.5)
            hint = f"near it: {', '.join(similar)}" if similar else f"its classes: {', '.join(classes[:12])}"
            raise UsageProblem(f"{self.name}: knows no class {name}; {hint}")

    def explain(
        self, images: np.ndarray, classes: np.ndarray, regions: Sequence[scores.Regions | None]
    ) -> list[Explanation]:
        """Explain images (n, size, size, 3), uint8, by the number of the class, or `MOST_PROBABLE`, of each, (n,)."""
        stack = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device)
        batch = self.explainer(stack, classes)
        calibrated = scaled(batch.probabilities, self.run.temperature or 1.0)
        predict = partial(probabilities, self.run.model, precision=self.explainer.precision, views=1)
        batch_scores: list[Scores] = [{} for _ in images]
        for method, maps in batch.maps.items():
            other_maps = np.roll(maps, -1, axis=0) if len(maps) > 1 else [None]
            for row, image_scores in enumerate(batch_scores):
                image_scores[method] = _location(maps[row], other_maps[row], regions[row])
                if method in batch.ranges:
                    key = self.explainer.methods[method].range_key
                    image_scores[method][key] = [scores.rounded(limit) for limit in batch.ranges[method][row]]
                    image_scores[method]["layers"] = self.explainer.explained_layers(method)
            if self.options.faithfulness:
                curves = faithfulness.curves(predict, stack, fill_colour(self.run.model), maps, batch.classes)
                for name, rows in curves.items():
                    for image_scores, map_, area in zip(batch_scores, maps, faithfulness.area(rows), strict=True):
                        image_scores[method][name] = scores.rounded(area) if map_.any() else None
        explanations = []
        for row, number in enumerate(batch.classes):
            maps_of = {method: maps[row] for method, maps in batch.maps.items()}
            agreement = {
                f"{one} {other}": scores.rounded(scores.agreement(maps_of[one], maps_of[other]))
                for one, other in combinations(maps_of, 2)
            }
            explanations.append(Explanation(calibrated[row], int(number), maps_of, batch_scores[row], agreement))
        return explanations


def _location(map_: np.ndarray, other_map: np.ndarray | None, regions: scores.Regions | None) -> dict[str, Any]:
    """Return where a map's energy and peak lie, and where the energy of another image's map would lie.

    A cell is in the middle of its crop, and so are many maps that do not look at it.
    """
    location: dict[str, Any] = {} if map_.any() else {"blank": True}
    if regions is not None:
        location["energy"] = _rounded(scores.energy(map_, regions))
        location["pointing"] = scores.pointing(map_, regions)
        if other_map is not None:
            location["swapped"] = _rounded(scores.energy(other_map, regions))
    return location


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: scores.rounded(value) for name, value in values.items()}
